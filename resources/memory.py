"""Pages for large columns, which come and go: small ones, that the kernel has at hand."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Options of Linux' prctl(2).
_SET_NO_HUGE_PAGES, _GET_NO_HUGE_PAGES = 41, 42


@contextmanager
def small_pages() -> Iterator[None]:
    """Get memory in pages of the usual size until the end of the block; not in huge ones.

    Arrow's allocator and NumPy both ask Linux for huge pages. A kernel whose memory is in pieces
    stops at each of them to make room, up to 40 ms a page: of the 11 to 14 s that a training set of
    1.75 million rows took in a new process, 8 to 11 were spent there; it takes 4 to 5 without
    (``docs/decisions/small-pages.md``). What was got before stays as it is. Elsewhere than on Linux
    nothing is done.
    """
    libc = _libc()
    if libc is None or libc.prctl(_GET_NO_HUGE_PAGES, 0, 0, 0, 0) == 1:
        yield
        return
    libc.prctl(_SET_NO_HUGE_PAGES, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SET_NO_HUGE_PAGES, 0, 0, 0, 0)


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
