"""What a long Spark job is at, in the words of a log; and its end when its run is cancelled.

Spark Connect tells a client every two seconds which stages and tasks of its query are done
(``registerProgressHandler``). It does not count rows: those are told by who knows them, before and
after. When the caller is interrupted (a run cancelled in Dagster, Ctrl-C), the query would go on in
the server for minutes, since only the client died; so it is interrupted by its tag.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from resources.reports import BuildReport
from resources.spark import telling_part

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.shell.progress import StageInfo

SAY_EVERY_S = 5.0
"""A query that takes less is not told of; a longer one is told of this often."""

_MEGABYTE = 1_000_000

Say = Callable[[str], None]


@dataclass
class QueryProgress:
    """Spark's progress handler: says what the queries of a session are at, but not too often.

    Attributes:
        what: what is built, the start of each line.
        say: takes a line.
        every_s: least time between two lines, and before the first one of a query.
        clock: monotonic seconds.
    """

    what: str
    say: Say
    every_s: float = SAY_EVERY_S
    clock: Callable[[], float] = time.monotonic
    _began: dict[str, float] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)

    def __call__(
        self,
        stages: "Iterable[StageInfo] | None",
        inflight_tasks: int,
        operation_id: str | None,
        done: bool,  # noqa: FBT001 - Spark's signature
    ) -> None:
        """Take Spark's word; it calls in the thread that waits for the query."""
        query, now = operation_id or "", self.clock()
        began = self._began.setdefault(query, now)
        known = list(stages or ())
        if done:
            del self._began[query]
            if self._said.pop(query, None) is not None:
                self.say(f"{self.what}: query ended, {_work(known)}, {now - began:.0f} s")
        elif known and now - self._said.get(query, began) >= self.every_s:
            self._said[query] = now
            most = sum(stage.num_tasks for stage in known)
            more = f"of at most {most}, {inflight_tasks} running, {now - began:.0f} s"
            self.say(f"{self.what}: {_work(known)} {more}")


def _work(stages: "list[StageInfo]") -> str:
    """Say how much is done; Spark also lists stages that it will skip, so there is no "of"."""
    done = sum(stage.done for stage in stages)
    tasks = sum(stage.num_completed_tasks for stage in stages)
    read = sum(stage.num_bytes_read for stage in stages) / _MEGABYTE
    return f"{done} stages done, {read:.1f} MB read, {tasks} tasks done"


class SparkWatch:
    """Watches the queries made within a ``with``: tells of them, and interrupts them with it.

    An ``Exception`` is the caller's affair: the query has ended by itself. Anything else
    (``KeyboardInterrupt``, Dagster's cancellation) means that nobody waits for it any more.

    Args:
        session: a Connect session; queries of other threads are told of, not interrupted.
        what: what is built, such as ``features/spend``.
        say: takes a line of the log.
    """

    def __init__(self, session: "SparkSession", what: str, say: Say) -> None:
        self._session = session
        self._what, self._say = what, say
        self._tag = f"millrace-{uuid4().hex}"
        self._progress = QueryProgress(what, say)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._session.addTag(self._tag)
        self._session.registerProgressHandler(self._progress)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the watch; if it was broken off, end the queries too."""
        self._session.removeProgressHandler(self._progress)
        self._session.removeTag(self._tag)
        if error is not None and not isinstance(error, Exception):
            self._interrupt()

    def _interrupt(self) -> None:
        from pyspark.errors import PySparkException

        try:
            # Spark that died has nothing left to interrupt, and a cancelled run does not wait.
            self._session.client.set_retry_policies([])
            self._session.interruptTag(self._tag)
        except PySparkException as error:
            self._say(f"{self._what}: Spark was not told to stop: {telling_part(error)}")
        else:
            self._say(f"{self._what}: cancelled, Spark was told to stop")


def report_text(report: BuildReport) -> str:
    """Say in a line what a build did."""
    rows = sum(outcome.rows for outcome in report.built)
    size = sum(outcome.bytes for outcome in report.built) / _MEGABYTE
    failed = f", {len(report.failed)} day(s) failed" if report.failed else ""
    return (
        f"{report.table}: {rows} row(s) in {len(report.built)} day(s), {size:.1f} MB, "
        f"{report.seconds:.1f} s{failed}"
    )
