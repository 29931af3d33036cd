"""Reading the ends of logs, and following them."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_BLOCK_BYTES = 1 << 16
_POLL_S = 0.2


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a file, read from its end; empty if there is no such file."""
    if lines <= 0:
        return ""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            block = b""
            while position > 0 and block.count(b"\n") <= lines:
                step = min(_BLOCK_BYTES, position)
                position = file.seek(position - step)
                block = file.read(step) + block
    except FileNotFoundError:
        return ""
    return "\n".join(block.decode("utf-8", "replace").splitlines()[-lines:])


def follow(
    paths: Callable[[], Mapping[str, Path]], *, is_over: Callable[[], bool]
) -> Iterator[tuple[str, str]]:
    """Yield ``(name, line)`` for each whole line added to files from now on.

    Files that appear later are read from their beginning, rotated ones from the new beginning.

    Args:
        paths: the files by name, asked for again at each look.
        is_over: asked after each look that found nothing.
    """
    read = {name: path.stat().st_size for name, path in paths().items() if path.exists()}
    while True:
        found = False
        for name, path in paths().items():
            for line in _added(path, name, read):
                found = True
                yield name, line
        if not found:
            if is_over():
                return
            time.sleep(_POLL_S)


def _added(path: Path, name: str, read: dict[str, int]) -> Iterator[str]:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    start = read.get(name, 0)
    if size < start:
        start = 0
    with path.open("rb") as file:
        file.seek(start)
        block = file.read(size - start)
    whole = block[: block.rfind(b"\n") + 1]
    read[name] = start + len(whole)
    yield from whole.decode("utf-8", "replace").splitlines()
