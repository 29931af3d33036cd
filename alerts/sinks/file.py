"""A file of JSON lines, one per message: for whatever follows a file, and for an audit.

What is handed over together is written in one ``write`` to the end of the file, under a lock, and is
on disk before it counts as sent; so lines of several processes never mix. A line that a crash cut off
is closed before the next is written. At ``max_bytes`` the file becomes ``<path>.1``, that one
``<path>.2``, up to ``keep`` of them: no more than ``(keep + 1) * max_bytes`` lie there, unless one
delivery is larger than that by itself.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from alerts.message import Batching, Delivery
from alerts.sinks.sink import Field, Options, SinkUnavailable

FIELDS = MappingProxyType(
    {
        "path": Field("text", is_required=True),
        "max_bytes": Field("number", least=1),
        "keep": Field("number", least=0),
    }
)


@dataclass(frozen=True)
class File:
    """One file.

    Attributes:
        path: where it is; its folder is made.
        max_bytes: no line is added that would make it larger; a new file is begun.
        keep: how many full files stay beside it.
    """

    path: Path
    max_bytes: int = 10_000_000
    keep: int = 5
    batching: Batching = "single"

    def send(self, delivery: Delivery) -> None:
        """Append a delivery; see ``Sink``."""
        lines = [json.dumps(one.to_json()) for one in delivery.messages]
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            with self._locked():
                self._append(data)
        except OSError as error:
            raise SinkUnavailable(
                f"cannot write: {error.strerror or error}",
                where=str(self.path),
                fix="give the user of Dagster's runs a path that may be written to",
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock that is not on the file itself: that one is moved away."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.path}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _append(self, data: bytes) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size and size + len(data) > self.max_bytes:
            self._rotate()
        with self.path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                data = data if file.read(1) == b"\n" else b"\n" + data
            file.write(data)
            os.fsync(file.fileno())

    def _rotate(self) -> None:
        for number in range(self.keep, 0, -1):
            newer = self.path if number == 1 else self._full(number - 1)
            if newer.exists():
                newer.replace(self._full(number))
        self.path.unlink(missing_ok=True)

    def _full(self, number: int) -> Path:
        return Path(f"{self.path}.{number}")


def build(options: Options) -> File:
    """Make it from its configuration."""
    path = Path(options["path"])
    most, keep = options.get("max_bytes", File.max_bytes), options.get("keep", File.keep)
    return File(path, int(most), int(keep))
