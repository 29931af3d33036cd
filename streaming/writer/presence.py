"""How others see that the writer is there: two files in its folder."""

import os
import time
from pathlib import Path

_BEAT_S = 1.0


class Presence:
    """``ready`` holds the pid once the first round is done; ``heartbeat`` is touched each second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next_beat = 0.0
        self._is_ready = False
        folder.mkdir(parents=True, exist_ok=True)

    def beat(self) -> None:
        """Touch the heartbeat, at most once a second."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + _BEAT_S
            (self._folder / "heartbeat").touch()

    def say_ready(self) -> None:
        """Say that the first round is done; nothing happens the next time."""
        if self._is_ready:
            return
        fresh = self._folder / f"ready.{os.getpid()}"
        fresh.write_text(f"{os.getpid()}\n", encoding="utf-8")
        fresh.replace(self._folder / "ready")
        self._is_ready = True

    def leave(self) -> None:
        """Say that the writer is gone."""
        if self._is_ready:
            (self._folder / "ready").unlink(missing_ok=True)
