"""`semiseg …` for a process that another one starts: it stops as at SIGTERM, all saved, when that one is gone."""

import ctypes
import signal

SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl.h

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)  # before the imports, which take seconds
    from .main import main

    main()
