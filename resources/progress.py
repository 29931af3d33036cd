"""That work goes on, said every few seconds for as long as it does."""

import threading
import time
from collections.abc import Callable
from typing import Self

SAY_EVERY_S = 5.0
"""Work that takes less is not told of; longer work is told of this often, whatever it does."""

Progress = Callable[[str], None]
"""Takes a line that says how far work has come; it must not raise."""


class Ticker:
    """Calls something every few seconds within a ``with``, in a thread of its own.

    Args:
        tell: called first when ``every_s`` have passed; it must not raise.
        every_s: from one call to the next.
    """

    def __init__(self, tell: Callable[[], None], every_s: float = SAY_EVERY_S) -> None:
        self._tell, self._every_s = tell, every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._is_over.wait(self._every_s):
            self._tell()

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; nothing is told afterwards."""
        self._is_over.set()
        self._thread.join()


def ticking(what: str, say: Progress) -> Ticker:
    """Tell of work without a number to it: that it goes on, and for how long."""
    began = time.monotonic()
    return Ticker(lambda: say(f"{what}, {time.monotonic() - began:.0f} s"))
