"""What a long Spark job is at, in the words of a log; and its end when its run is cancelled.

Spark Connect tells a client every two seconds, if anything changed, which tasks of its query are
done (``registerProgressHandler``). It does not count rows: those are told by who knows them, before
and after. The bytes that it counts are those that Spark reads itself, tables; raw files are read by
Python on its workers, so of a query that reads them only tasks are told. When the caller is
interrupted (a run cancelled in Dagster, Ctrl-C), the query would go on in the server for minutes, since
only the client died; so it is interrupted by its tag.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from resources.lake.reports import BuildReport
from resources.progress import Progress, Ticker
from resources.spark.session import telling_part

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.shell.progress import StageInfo

_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class _Query:
    """What Spark last said of a query; it also lists stages that it will skip."""

    tasks: int = 0
    most: int = 0
    running: int = 0
    bytes_read: int = 0


@dataclass
class QueryProgress:
    """Spark's progress handler: knows what the queries of a session have done since it was made.

    Attributes:
        what: what is built, the start of each line.
        say: takes a line.
        clock: monotonic seconds.
    """

    what: str
    say: Progress
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _queries: dict[str, _Query] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def __call__(
        self,
        stages: "Iterable[StageInfo] | None",
        inflight_tasks: int,
        operation_id: str | None,
        done: bool,  # noqa: FBT001 - Spark's signature
    ) -> None:
        """Take Spark's word; it calls in the thread that waits for the query."""
        query = operation_id or ""
        (self._open.discard if done else self._open.add)(query)
        if known := list(stages or ()):
            self._queries[query] = _Query(
                sum(stage.num_completed_tasks for stage in known),
                sum(stage.num_tasks for stage in known),
                inflight_tasks,
                sum(stage.num_bytes_read for stage in known),
            )

    def tell(self) -> None:
        """Progress what is done; called by another thread than that of the queries."""
        every = list(self._queries.values())
        now = [found for q in list(self._open) if (found := self._queries.get(q)) is not None]
        tasks, size = sum(q.tasks for q in every), sum(q.bytes_read for q in every)
        parts = [f"{tasks} tasks done"]
        if now:
            to_come = sum(q.most - q.tasks for q in now)
            parts[0] += f" of at most {tasks + to_come}"
            parts.append(f"{sum(q.running for q in now)} running")
        if size:
            parts.append(f"{size / _MEGABYTE:.1f} MB of tables read")
        self.say(f"{self.what}: {', '.join(parts)}, {self.clock() - self._began:.0f} s")


class SparkWatch:
    """Watches the queries made within a ``with``: tells of them, and interrupts them with it.

    An ``Exception`` is the caller's affair: the query has ended by itself. Anything else
    (``KeyboardInterrupt``, Dagster's cancellation) means that nobody waits for it any more.

    Args:
        session: a Connect session; queries of other threads are told of, not interrupted.
        what: what is built, such as ``features/spend``.
        say: takes a line of the log.
    """

    def __init__(self, session: "SparkSession", what: str, say: Progress) -> None:
        self._session = session
        self._what, self._say = what, say
        self._tag = f"millrace-{uuid4().hex}"
        self._progress = QueryProgress(what, say)
        self._ticker = Ticker(self._progress.tell)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._session.addTag(self._tag)
        self._session.registerProgressHandler(self._progress)
        self._ticker.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the watch; if it was broken off, end the queries too."""
        self._ticker.__exit__()
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
    """Progress in a line what a build did."""
    rows = sum(outcome.rows for outcome in report.built)
    size = sum(outcome.bytes for outcome in report.built) / _MEGABYTE
    failed = f", {len(report.failed)} day(s) failed" if report.failed else ""
    return (
        f"{report.table}: {rows} row(s) in {len(report.built)} day(s), {size:.1f} MB, "
        f"{report.seconds:.1f} s{failed}"
    )
