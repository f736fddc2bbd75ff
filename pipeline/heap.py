"""How this process's memory is managed: what is freed is used again, not given back.

glibc maps every array above 32 MiB anew, and hands the top of its heap back to the system as soon
as it is free. A network frees and asks for the same tens of megabytes at every layer; each time
the system clears the pages, which costs more than many a layer's arithmetic.
"""

import ctypes
import sys

_TRIM, _TOP_PAD, _MMAP = -1, -2, -3  # malloc.h
_NEVER = 2**31 - 1
_LARGEST = 128 * 2**20
"""Of arrays that are kept. A freed array's place may be a few bytes too small for the next one as
large, so that several places of a size come to be kept; of very large ones that would be much."""
_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to; returns whether it listened. Other systems keep their own ways.

    The process then holds as much as it once needed until it ends, and needs no more for it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {_MMAP: _LARGEST, _TRIM: _NEVER, _TOP_PAD: _PAD}
    return all(list(map(mallopt, wanted.keys(), wanted.values())))
