"""What a run's log says of a long Spark job, and what becomes of the job when nobody waits."""

from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

import pytest
from pyspark.errors import PySparkException

from millrace.days import parse_day
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.progress import Ticker
from resources.spark.progress import QueryProgress, SparkWatch, report_text


@dataclass
class Stage:
    num_tasks: int
    num_completed_tasks: int
    num_bytes_read: int
    done: bool


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Session:
    """What ``SparkWatch`` uses of a session."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    dead: bool = False

    def __getattr__(self, name: str) -> Any:
        def call(argument: Any) -> None:
            self.calls.append((name, argument))
            if self.dead and name == "interruptTag":
                raise PySparkException("UNAVAILABLE: nobody there\nand more")

        return call

    @property
    def client(self) -> "Session":
        return self

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


STAGES = [Stage(8, 8, 2_000_000, done=True), Stage(24, 5, 1_500_000, done=False)]


def test_what_is_told_are_tasks_of_all_queries_and_bytes_that_spark_counts() -> None:
    clock, said = Clock(), list[str]()
    progress = QueryProgress("tiles/spend", said.append, clock=clock)
    clock.now = 105
    progress.tell()
    progress([Stage(4, 1, 0, done=False)], 2, "files", done=False)
    clock.now = 110
    progress.tell()
    progress(None, 0, "files", done=True)
    progress(STAGES, 2, "tables", done=False)
    clock.now = 115
    progress.tell()
    progress(STAGES, 0, "tables", done=True)
    clock.now = 120
    progress.tell()
    assert said == [
        "tiles/spend: 0 tasks done, 5 s",
        "tiles/spend: 1 tasks done of at most 4, 2 running, 10 s",
        "tiles/spend: 14 tasks done of at most 33, 2 running, 3.5 MB of tables read, 15 s",
        "tiles/spend: 14 tasks done, 3.5 MB of tables read, 20 s",
    ]


def test_a_ticker_tells_while_the_work_goes_on_and_not_afterwards() -> None:
    ticks: Queue[int] = Queue()
    with Ticker(lambda: ticks.put(1), every_s=0.001):
        assert [ticks.get(timeout=20) for _ in range(3)] == [1, 1, 1]
    for _ in range(ticks.qsize()):
        ticks.get()
    with pytest.raises(Empty):
        ticks.get(timeout=0.05)


def test_work_that_ends_leaves_nothing_behind_in_the_session() -> None:
    session = Session()
    with SparkWatch(session, "tiles/spend", lambda _: None):
        pass
    assert session.names() == ["addTag", "registerProgressHandler", *_END]
    assert session.calls[0][1] == session.calls[3][1]


_END = ["removeProgressHandler", "removeTag"]


def test_a_fault_interrupts_nothing() -> None:
    session = Session()
    with pytest.raises(ValueError), SparkWatch(session, "x", lambda _: None):  # noqa: PT011
        raise ValueError
    assert "interruptTag" not in session.names()


class CancelledError(BaseException):
    """As Dagster's: no ``Exception``."""


def test_a_cancelled_run_interrupts_its_own_queries() -> None:
    session, said = Session(), list[str]()
    with pytest.raises(CancelledError), SparkWatch(session, "tiles/spend", said.append):
        raise CancelledError
    assert ("interruptTag", session.calls[0][1]) in session.calls
    assert said == ["tiles/spend: cancelled, Spark was told to stop"]


def test_a_cancelled_run_ends_even_if_spark_has_died() -> None:
    session, said = Session(dead=True), list[str]()
    with pytest.raises(CancelledError), SparkWatch(session, "tiles/spend", said.append):
        raise CancelledError
    assert said == ["tiles/spend: Spark was not told to stop: UNAVAILABLE: nobody there"]


def test_a_report_in_a_line_counts_what_stands_and_what_failed() -> None:
    days = [parse_day(f"2020-01-0{n}") for n in range(1, 4)]
    outcomes = (
        PartitionOutcome(days[0], rows=10, bytes=1_500_000),
        PartitionOutcome(days[1], rows=20, bytes=500_000),
        PartitionOutcome(days[2], error="cut off"),
    )
    report = BuildReport("tiles/spend/v1", "v1", 3, outcomes, seconds=4.26)
    assert report_text(report) == (
        "tiles/spend/v1: 30 row(s) in 2 day(s), 2.0 MB, 4.3 s, 1 day(s) failed"
    )
