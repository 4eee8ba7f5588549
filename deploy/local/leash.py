"""Runs a program that ends with the process that started it, however that one ends.

    python leash.py PID-OF-THE-STARTER PROGRAM [ARGUMENT…]

Linux sends the program SIGKILL when its starter is gone, even by SIGKILL: the wish outlives the
exec (prctl(2), PR_SET_PDEATHSIG). Elsewhere the program runs without a leash. It must not import
anything but the standard library, and keeps no process of its own: it becomes the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Become the program."""
    starter, *command = sys.argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # It may have ended before the wish was known.
    if os.getppid() == int(starter):
        os.execvp(command[0], command)  # noqa: S606  # becoming the given program is its purpose


if __name__ == "__main__":
    main()
