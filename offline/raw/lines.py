"""Lines of raw text files, whatever they are compressed with, as Spark's workers read them.

A line ends with LF, CR LF or CR. Blank lines are no lines, nor is a byte order mark part of one.
"""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from offline.raw.splits import Split, parts

if TYPE_CHECKING:
    import pyarrow as pa

LINE, PATH, POSITION = "_line", "_path", "_position"
"""Columns of lines: their bytes, the file, and the byte (of what is unpacked) they begin at."""

BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 4 << 20
_HEAD_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 64 << 20


@contextmanager
def _zstd(path: str) -> Iterator[IO[bytes]]:
    import pyarrow as pa

    with pa.OSFile(path) as raw, pa.CompressedInputStream(raw, "zstd") as stream:
        yield stream


def _plain(path: str) -> IO[bytes]:
    return open(path, "rb")


_OPENERS: dict[str, Callable[[str], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstd,
}

COMPRESSIONS = tuple(_OPENERS)
"""Endings of compressed text, in small letters."""


def open_text(path: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file for its unpacked bytes, by its ending in whatever case."""
    opener = _OPENERS.get(Path(path).suffix.lower(), _plain)
    found: AbstractContextManager[IO[bytes]] = opener(path)
    return found


def split_text(sizes: Mapping[str, int]) -> list[Split]:
    """Return the parts that files are read in, path to bytes; a compressed file is one."""
    splits = []
    for path, size in sizes.items():
        if Path(path).suffix.lower() in _OPENERS and size:
            splits.append(Split(path, 0, -1, size))
        else:
            splits += [Split(path, start, stop, stop - start) for start, stop in parts(size)]
    return splits


def whole(path: str) -> Split:
    """Return a file as one part."""
    return Split(path, 0, -1, 0)


def first_line(path: str) -> bytes:
    """Return the first line of a file that is not blank; empty if there is none.

    Raises:
        UnicodeError: it is text of another kind than UTF-8.
        OSError, EOFError, lzma.LZMAError, zlib.error: the file is not what it says, or gone.
    """
    with open_text(path) as stream:
        text = b""
        while block := stream.read(_HEAD_BYTES):
            text += block
            if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in block:
                raise UnicodeError("it is UTF-16, or no text; UTF-8 is read")
            lines = [one for one in text.removeprefix(BOM).splitlines() if one.strip()]
            if len(lines) > 1 or len(text) > _LONGEST_LINE_BYTES:
                return lines[0] if lines else b""
        return next((one for one in text.removeprefix(BOM).splitlines() if one.strip()), b"")


def lines_schema() -> "pa.Schema":
    """Return the schema of lines."""
    import pyarrow as pa

    return pa.schema({LINE: pa.binary(), PATH: pa.string(), POSITION: pa.int64()})


def lines_of(split: Split, *, has_header: bool = False) -> "Iterator[pa.RecordBatch]":
    """Yield the lines that begin within a split, as batches of ``lines_schema``.

    A header is the first line of a file that is not blank, and left out.

    Raises:
        OSError, EOFError, lzma.LZMAError, zlib.error: the file is not what it says, or gone.
    """
    import pyarrow as pa

    skips_first = has_header and split.start == 0
    for lines, places in _blocks(split):
        kept = [i for i, line in enumerate(lines) if line and not line.isspace()]
        if skips_first and kept:
            del kept[0]
            skips_first = False
        columns = {
            LINE: [lines[i] for i in kept],
            PATH: [split.path] * len(kept),
            POSITION: [places[i] for i in kept],
        }
        yield pa.RecordBatch.from_pydict(columns, schema=lines_schema())


def _blocks(split: Split) -> Iterator[tuple[list[bytes], list[int]]]:
    """Yield lines with where they begin. A line that began in another split is left to that one."""
    with open_text(split.path) as stream:
        place = 0
        if split.start > 0:
            # The byte before tells whether a line begins right here.
            place = split.start - 1
            stream.seek(place)
        rest, skips, is_last = b"", split.start > 0, False
        while not is_last and (split.stop < 0 or place < split.stop):
            block = stream.read(_BLOCK_BYTES)
            is_last = not block
            if place == 0 and not rest:
                # Counted as bytes of the file all the same, so that places stay those of the file.
                place, block = (3, block[3:]) if block.startswith(BOM) else (0, block)
            lines = (rest + block).splitlines(keepends=True)
            if not is_last and lines and not _is_ended(lines[-1]):
                rest = lines.pop()
                if len(rest) > _LONGEST_LINE_BYTES:
                    raise OSError(f"a line is longer than {_LONGEST_LINE_BYTES >> 20} MB")
            else:
                rest = b""
            if skips and lines:
                place += len(lines.pop(0))
                skips = False
            texts, places = [], []
            for line in lines:
                if 0 <= split.stop <= place:
                    break
                texts.append(line.rstrip(b"\r\n"))
                places.append(place)
                place += len(line)
            yield texts, places


def _is_ended(line: bytes) -> bool:
    """Whether a line is known to be whole: after a CR at a block's end an LF may follow."""
    return line.endswith(b"\n")
