"""The C library's allocator, set for large messages."""

import ctypes

# glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_SETTINGS = (
    (_M_ARENA_MAX, 1),
    (_M_MMAP_THRESHOLD, 1 << 30),
    (_M_TRIM_THRESHOLD, (1 << 31) - 1),
)


def tune() -> bool:
    """Whether the allocator now keeps large blocks; call it once, before threads are started.

    Without this, glibc maps every block above 32 MB anew and gives it back at once, so that each
    message of 100 MB costs 24,000 page faults, more than half of its CPU time. The price is that a
    process does not shrink below its peak. Other C libraries have no such switch, and keep theirs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(what, value) == 1 for what, value in _SETTINGS)
