"""What training processes are forked from: a process that has imported what all of them need."""

from peft_study.running import lean

lean.begin()
import peft_study.training.loop  # noqa: E402, F401

lean.settle()
