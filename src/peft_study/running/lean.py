"""A process that imports much, and then is gone, quickly. It imports nothing of weight itself."""

import atexit
import gc
import os


def begin() -> None:
    """Let a process import without the garbage collector, until `settle`, and end at once.

    The collector would search what is imported again and again, a sixth of the time; and a process
    that holds PyTorch takes a second to take itself apart, which the system does at once.
    """
    gc.disable()
    atexit.register(os._exit, 0)


def settle() -> None:
    """Let the collector work again, on what comes after the imports."""
    gc.enable()
    gc.freeze()  # nor do forked processes search it, which would copy its pages
