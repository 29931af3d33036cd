"""What a run's log says of a long Spark job, and what becomes of the job when nobody waits."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pyspark.errors import PySparkException

from resources.reports import BuildReport, PartitionOutcome, parse_day
from resources.spark_progress import QueryProgress, SparkWatch, report_text


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


def test_a_query_is_told_of_after_a_while_and_then_not_too_often() -> None:
    clock, said = Clock(), list[str]()
    progress = QueryProgress("tiles/spend", said.append, every_s=5, clock=clock)
    for second in range(12):
        clock.now = 100 + second
        progress(STAGES, 2, "q", done=False)
    clock.now = 113
    progress(STAGES, 0, "q", done=True)
    assert said == [
        "tiles/spend: 1 stages done, 3.5 MB read, 13 tasks done of at most 32, 2 running, 5 s",
        "tiles/spend: 1 stages done, 3.5 MB read, 13 tasks done of at most 32, 2 running, 10 s",
        "tiles/spend: query ended, 1 stages done, 3.5 MB read, 13 tasks done, 13 s",
    ]


def test_short_queries_are_not_told_of_however_many() -> None:
    clock, said = Clock(), list[str]()
    progress = QueryProgress("tiles/spend", said.append, every_s=5, clock=clock)
    for query in range(10):
        progress(STAGES, 1, str(query), done=False)
        clock.now += 2
        progress(STAGES, 0, str(query), done=True)
    progress([], 0, None, done=True)
    assert said == []


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
