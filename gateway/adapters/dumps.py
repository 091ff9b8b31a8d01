"""Turns core dumps off for this process.

Rule:
    Linux, prctl(2) PR_SET_DUMPABLE and setrlimit(2) RLIMIT_CORE.  The limit alone is not enough:
    it is not enforced for dumps that are piped to a program (core(5)).
"""

from __future__ import annotations

import ctypes
import resource
import sys

_GET_DUMPABLE, _SET_DUMPABLE = 3, 4


def forbid_dumps() -> None:
    """Write no core dump from here on, and let no process of this user read this one's memory.

    Raises:
        OSError: The system has no such switch, or did not turn it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        raise OSError("no switch for dumps is known here")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0 or libc.prctl(_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
