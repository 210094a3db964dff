"""Programs that stop as at SIGTERM when the process that started them is gone: `[*PYTHON, FILE]`, `[*MODULE, NAME]`."""

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl.h
PYTHON = (sys.executable, "-P", __file__)
"""Takes the arguments of python."""
MODULE = (*PYTHON, "-P", "-m")
"""Takes a module and its arguments. What lies in the working folder, a user's `random.py`, stands for no other."""

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)  # which goes on through exec
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
