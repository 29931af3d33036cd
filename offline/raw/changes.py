"""When the raw files of a source last changed, as far as the file system says."""

from collections.abc import Sequence
from pathlib import Path

from offline.raw.files import RawFile


def changed_since(files: Sequence[RawFile], instant_ms: int) -> bool:
    """Whether a file or a folder of files may have changed at an instant or later.

    A file's change time counts, which no copying tool sets back, and that of its folder, which moves
    when a file comes, goes or is renamed. Of a table or a URL nothing is known, so it may have.

    Args:
        files: of a source, as ``find_raw_files`` gives them; at least one.
        instant_ms: epoch milliseconds.
    """
    if not all(file.was_looked_at for file in files):
        return True
    paths = {Path(file.path) for file in files}
    folders = {path.parent for path in paths}
    try:
        newest_ns = max(path.stat().st_ctime_ns for path in (*paths, *folders))
    except OSError:
        return True
    return newest_ns // 1_000_000 >= instant_ms
