"""One committer at a time for a table on a local disk.

On a local file system the JVM's Delta commits by looking whether the next log file exists and then
renaming over it, so a commit that delta-rs made in between is lost without a word. Whoever may
meet the other kind of writer on one table (the archive, and Spark's builds of events and dead
letters) therefore holds this lock while it commits. Object stores have conditional puts and need
no lock.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.errors import EngineUnavailable
from resources.settings import Settings

_POLL_S = 0.02


class TableBusy(EngineUnavailable):
    """Another process is writing to the table; the same commit may succeed later."""

    code = "table_busy"


@contextmanager
def locked(settings: Settings, table: str, *, wait_s: float | None = None) -> Iterator[None]:
    """Hold the right to commit to a table of a local lake; of another lake, do nothing.

    The system frees it when the process ends, however that happens. Not reentrant: two holders in
    one process exclude each other too.

    Args:
        settings: names the lake.
        table: name under the lake, such as ``events/card_transactions``.
        wait_s: how long to wait for another holder; None: as long as it takes.

    Raises:
        TableBusy: another process held it all the time.
    """
    if "://" in settings.lake:
        yield
        return
    path = Path(settings.lake) / ".locks" / f"{table}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, path, wait_s)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait_s: float | None) -> None:
    if wait_s is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TableBusy(
                    f"another process has been writing to the table for {wait_s:g} s",
                    where=str(path),
                    fix="it will be tried again; a backfill holds a table while it writes",
                ) from None
            time.sleep(_POLL_S)
        else:
            return
