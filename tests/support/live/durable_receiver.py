"""A receiver of posts that is a process of its own, killed with -9 and started again as it was.

``python -m tests.support.live.durable_receiver PORT FILE`` takes JSON by POST at any path. A post is a line
of the file, on disk before it is answered; one whose ``Idempotency-Key`` came before is noted as a
repetition and answered like the first, as a receiver does that knows such keys. The answer takes a
while: whoever is killed meanwhile leaves a post that was taken and that nobody knows of.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from resources.settings import CHECKOUT

_WAIT_S = 30
_ANSWER_AFTER_S = 0.3


@dataclass(frozen=True)
class Post:
    """One post that was taken.

    Attributes:
        key: its ``Idempotency-Key``.
        is_again: the same key was taken before; then ``body`` is the same too and is not kept.
    """

    path: str
    key: str
    is_again: bool
    body: Any


class ReceiverProcess:
    """The process at a port, and the file it keeps."""

    def __init__(self, port: int, file: Path, env: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._file, self._env = file, dict(env)
        self._command = [
            sys.executable,
            "-m",
            "tests.support.live.durable_receiver",
            str(port),
            str(file),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what it has taken before stays taken."""
        self._process = subprocess.Popen(self._command, env=self._env, cwd=CHECKOUT)

    def kill(self) -> None:
        """Kill it with -9, wherever it is."""
        if self._process is not None:
            assert self._process.poll() is None, f"the receiver at {self.url} ended by itself"
            self._process.kill()
            self._process.wait(_WAIT_S)
            self._process = None

    def size(self) -> int:
        """Return how much it has taken, bytes."""
        return self._file.stat().st_size if self._file.exists() else 0

    def posts(self) -> list[Post]:
        """Return what was taken, in order."""
        return read_posts(self._file)


def read_posts(file: Path) -> list[Post]:
    """Read the whole lines of a receiver's file; a killed one may leave the beginning of another."""
    if not file.exists():
        return []
    lines = file.read_bytes().split(b"\n")[:-1]
    return [Post(**json.loads(line)) for line in lines]


class _Book:
    """The file, and the keys that are in it."""

    def __init__(self, file: Path) -> None:
        kept = file.read_bytes() if file.exists() else b""
        self._keys = {post.key for post in read_posts(file)}
        self._file = file.open("ab")
        # A line that was cut off was not answered either: it comes again.
        self._file.truncate(kept.rfind(b"\n") + 1)
        self._lock = threading.Lock()

    def take(self, path: str, key: str, body: Any) -> None:
        """Write a post down; on return it is on disk."""
        with self._lock:
            is_again = key in self._keys
            document = {
                "path": path,
                "key": key,
                "is_again": is_again,
                "body": None if is_again else body,
            }
            self._file.write(json.dumps(document).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._keys.add(key)


def serve(port: int, file: Path) -> None:
    """Take posts for ever."""
    book = _Book(file)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            book.take(self.path, self.headers["Idempotency-Key"], body)
            time.sleep(_ANSWER_AFTER_S)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
