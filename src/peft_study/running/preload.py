"""What training processes are forked from: a process that has imported what all of them need.

The garbage collector would search what is imported again and again, a sixth of the time; and a
process that holds PyTorch takes a second to take itself apart, which the system does at once.
"""

import atexit
import gc
import os

gc.disable()
import peft_study.training.loop  # noqa: E402, F401

gc.enable()
gc.freeze()  # nor do the forked processes search it, which would copy its pages
atexit.register(os._exit, 0)
