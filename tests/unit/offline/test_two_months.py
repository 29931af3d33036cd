"""Two months of ticks by a clock of our own: each day is built when its data are there, and once.

The schedules and sensors are the real ones, and so is the look at the files, which come, change and
vanish on a disk; a run is what it would write into the partition log. What was due to happen is
written down by hand beside the files, and held against what was asked for.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.batch.arrivals import Watch, days_of
from jobs.definitions import build_definitions
from millrace.calendar import days_between, to_ms
from millrace.days import Days
from millrace.plan import Plan, SourcePlan
from offline.raw.arrivals import Arrivals
from offline.tables.partition_log import PartitionState
from offline.tables.stages import plan_build, read_state
from resources.dagster.asset_keys import arrived_sensor, daily_job
from resources.declarations import plan_of
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import FakeOffline

DECLARED = """
version: millrace/v1
sources:
{sources}
entities: [{{name: shopper, join_key: who, type: int64}}]
feature_views:
{views}
"""
SOURCE = """\
  - name: {name}
    columns: {{at: timestamp, who: int64}}
    event_time: at
    allowed_lateness: 90m
    late_after: 6h
    {extra}
    batch: {{format: {form}, path: "{path}"}}
"""
VIEW = """\
  - name: {name}_counts
    entity: shopper
    source: {name}
    start: 2031-03-01
    features: [{{name: n_7d, aggregate: count, window: 7d}}]
"""
BEGIN, END = date(2031, 3, 1), date(2031, 4, 30)
LOOKS = ("01:31", "03:36", "06:10", "12:00", "20:00")
"""Of the sensors, each followed by one five minutes later."""
TICK = timedelta(hours=1, minutes=30)
RUN_TAKES = timedelta(minutes=3)
SETTLED = timedelta(minutes=1)
MADE_UP = 5
"""Ticks that Dagster makes up for after an outage; by default of the instance files."""


def march(day: int, time: str = "00:00") -> datetime:
    return datetime.fromisoformat(f"2031-03-{day:02}T{time}+00:00")


def april(day: int, time: str = "00:00") -> datetime:
    return datetime.fromisoformat(f"2031-04-{day:02}T{time}+00:00")


OUTAGES = ((march(25, "22:00"), march(26, "08:00")), (april(5, "12:00"), april(13, "09:00")))


def morning(day: date, hour: int = 24, minute: int = 40) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
        hours=hour, minutes=minute
    )


@dataclass
class Story:
    """What happens to the files of a source, and what has to follow.

    Attributes:
        drops: what is done to the files, and when.
        truth: day to the instants from which on it is to be built, once for each.
    """

    drops: list[tuple[datetime, Any]] = field(default_factory=list)
    truth: dict[date, list[datetime]] = field(default_factory=dict)

    def there(self, day: date, at: datetime, drop: Any) -> None:
        self.drops.append((at, drop))
        self.truth.setdefault(day, []).append(at)


def named_story(folder: Path) -> Story:
    """``{date}.csv``: late by two hours, by a week, replaced, deleted, empty, and one that never came."""
    story = Story()

    def csv(day: date, rows: int) -> Any:
        def drop(at: datetime) -> None:
            path = folder / f"{day}.csv"
            path.write_text("at,who\n" + f"{day}T05:00:00Z,1\n" * rows, encoding="utf-8")
            os.utime(path, (at.timestamp(), at.timestamp()))

        return drop

    def gone(day: date) -> Any:
        return lambda _: (folder / f"{day}.csv").unlink()

    special = {
        march(5).date(): lambda d: story.there(d, morning(d, 27, 30), csv(d, 3)),
        march(9).date(): lambda d: story.there(d, morning(d, 24 * 8, 600), csv(d, 3)),
        march(17).date(): lambda d: story.there(d, morning(d), csv(d, 0)),
        march(22).date(): lambda d: None,
    }
    for day in days_between(BEGIN, END):
        special.get(day, lambda d: story.there(d, morning(d), csv(d, 3)))(day)
    story.there(march(12).date(), march(14, "11:50"), csv(march(12).date(), 4))
    story.drops.append((march(16, "15:00"), gone(march(15).date())))
    story.there(march(15).date(), march(18, "11:00"), csv(march(15).date(), 5))
    # Put back as it was: nothing has changed.
    story.drops.append((april(2, "15:00"), gone(march(30).date())))
    story.drops.append(
        (april(3, "11:00"), lambda _: csv(march(30).date(), 3)(morning(march(30).date())))
    )
    return story


def footers_story(folder: Path) -> Story:
    """Parquet whose statistics tell its days; closed at weekends, but for one Saturday."""
    story = Story()

    def parquet(day: date) -> Any:
        def drop(at: datetime) -> None:
            instants = [morning(day, 5), morning(day, 20)]
            rows = {"at": pa.array(instants, pa.timestamp("us", "UTC")), "who": [1, 2]}
            path = folder / f"part-{to_ms(at)}.parquet"
            pq.write_table(pa.table(rows), path)
            os.utime(path, (at.timestamp(), at.timestamp()))

        return drop

    for day in days_between(BEGIN, END):
        if day.weekday() < 5:
            story.there(day, morning(day), parquet(day))
        else:
            # Before there is any file at all, even a day without one cannot be built.
            story.truth[day] = [max(morning(day, 24, 0), march(4, "00:40"))]
    open_saturday = date(2031, 4, 26)
    assert open_saturday.weekday() == 5
    story.there(open_saturday, april(27, "11:30"), parquet(open_saturday))
    # A second file of a day that is built.
    story.there(date(2031, 3, 19), march(20, "18:00"), parquet(date(2031, 3, 19)))
    return story


def growing_story(folder: Path) -> Story:
    """One file of text that grows each night, and once stood still for three."""
    story = Story()

    def grown(day: date) -> Any:
        def drop(at: datetime) -> None:
            path = folder / "all.csv"
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{day}T05:00:00Z,1\n" if path.stat().st_size else "at,who\n")
            os.utime(path, (at.timestamp(), at.timestamp()))

        return drop

    still = [march(31).date(), april(1).date(), april(2).date()]
    for day in days_between(BEGIN, END):
        if day in still:
            story.truth[day] = [morning(april(3).date())]
        else:
            story.there(day, morning(day), grown(day))
    return story


STORIES = {
    "named": (named_story, "csv", "{date}.csv", ""),
    "footers": (footers_story, "parquet", "", "empty_days: [saturday, sunday]"),
    "growing": (growing_story, "csv", "all.csv", ""),
}


@dataclass
class Replay:
    """The code location, the files, and what was asked for so far."""

    defs: dg.Definitions
    plan: Plan
    settings: Settings
    instance: dg.DagsterInstance
    now: datetime
    log: dict[str, dict[date, PartitionState]] = field(default_factory=dict)
    cursors: dict[str, str | None] = field(default_factory=dict)
    asked: list[tuple[str, date, datetime, str]] = field(default_factory=list)
    keys: set[tuple[str, str | None]] = field(default_factory=set)
    running: list[tuple[datetime, SourcePlan, dg.DagsterRun]] = field(default_factory=list)
    late: dict[str, set[date]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = self.defs.get_repository_def()

    def look(self, source: SourcePlan) -> None:
        name = arrived_sensor(source.name)
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursors.get(name), repository_def=self.repository
        )
        done = self.repository.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = done.cursor
        watch = Watch.parse(done.cursor)
        assert watch is not None
        late = watch.late_days(source, to_ms(self.now))
        self.late.setdefault(source.name, set()).update(late)
        self.launch(source, name, done)

    def tick(self, source: SourcePlan, at: datetime) -> None:
        name = daily_job(source.name)
        context: Any = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=at, repository_def=self.repository
        )
        # As a reference it would be opened anew at each tick.
        context._instance = self.instance
        done = self.repository.get_schedule_def(name).evaluate_tick(context)
        self.launch(source, name, done)

    def launch(self, source: SourcePlan, by: str, done: Any) -> None:
        if done.skip_message:
            self.skipped.setdefault(by, []).append(done.skip_message)
        for request in done.run_requests:
            if (by, request.run_key) in self.keys:
                continue
            self.keys.add((by, request.run_key))
            job = daily_job(source.name)
            tags = {
                **request.tags,
                **({"dagster/partition": key} if (key := request.partition_key) else {}),
            }
            run = dg.DagsterRun(job_name=job, tags=tags, status=dg.DagsterRunStatus.STARTED)
            self.running.append((self.now + RUN_TAKES, source, run))
            span = days_of(run)
            assert span is not None
            self.asked += [(source.name, day, self.now, by) for day in days_between(*span)]

    def end_runs(self) -> None:
        """End the runs that are over: their days stand as built from the files that are there."""
        for over in [one for one in self.running if one[0] <= self.now]:
            ended, source, run = over
            span = days_of(run)
            assert span is not None
            arrivals = Arrivals.look(source, self.settings)
            views = self.plan.views_of(source.name)
            days = Days.through(*span)
            now_ms, began = to_ms(self.now), ended - RUN_TAKES
            lake = read_state(self.settings, source, views)
            lake = replace(lake, events=self.log.get(source.name, {}))
            earlier = plan_build(lake, source, views, days)[0].earlier
            self.asked += [(source.name, day, began, f"the reach of {span[0]}") for day in earlier]
            for day in (*earlier, *days):
                self.log.setdefault(source.name, {})[day] = PartitionState(
                    day, source.fingerprint, None, 1, (), now_ms, files=arrivals.signature(day)
                )
            self.running.remove(over)


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    sources, views = "", ""
    for name, (_, form, path, extra) in STORIES.items():
        (tmp_path / name).mkdir()
        (tmp_path / "growing" / "all.csv").touch() if name == "growing" else None
        sources += SOURCE.format(name=name, form=form, path=tmp_path / name / path, extra=extra)
        views += VIEW.format(name=name)
    file = tmp_path / "views.yaml"
    file.write_text(DECLARED.format(sources=sources, views=views), encoding="utf-8")
    plan = plan_of([file])
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path / "home")})
    defs = build_definitions(plan, settings, offline=FakeOffline())
    with dg.instance_for_test() as instance:
        found = Replay(defs, plan, settings, instance, march(1))

        def log_of(_settings: Settings, table: str) -> Mapping[date, PartitionState]:
            return found.log.get(table.removeprefix("events/"), {})

        for place in (
            "jobs.batch.arrivals.read_partition_log",
            "jobs.batch.schedules.read_partition_log",
        ):
            monkeypatch.setattr(place, log_of)

        def under_way(_instance: object, source: SourcePlan, _views: object) -> list[dg.DagsterRun]:
            return [run for _, of, run in found.running if of is source]

        for place in ("jobs.batch.arrivals.under_way", "jobs.batch.schedules.under_way"):
            monkeypatch.setattr(place, under_way)
        for place in ("jobs.batch.arrivals._now", "jobs.batch.schedules._now"):
            monkeypatch.setattr(place, lambda: found.now)
        yield found


def is_up(at: datetime) -> bool:
    return not any(down <= at < up for down, up in OUTAGES)


def moments() -> list[datetime]:
    """When a sensor may ask for a day that was never built, or a tick for its own."""
    found = [up for _, up in OUTAGES]
    for day in days_between(BEGIN, date(2031, 5, 2)):
        found.append(morning(day, 0, 0) + TICK)
        for text in LOOKS:
            at = datetime.fromisoformat(f"{day}T{text}+00:00")
            found += [at, at + timedelta(minutes=5)]
    found += [up + timedelta(minutes=5) for _, up in OUTAGES]
    return sorted(at for at in found if is_up(at))


def test_each_day_is_built_when_its_data_are_there_and_once(replay: Replay, tmp_path: Path) -> None:
    stories = {name: make(tmp_path / name) for name, (make, *_) in STORIES.items()}
    drops = sorted(
        ((at, name, drop) for name, story in stories.items() for at, drop in story.drops),
        key=lambda one: one[0],
    )
    ends = {up for _, up in OUTAGES}
    # The sensors have looked on the day before anything was due.
    for source in replay.plan.sources.values():
        replay.look(source)
    ticked = march(2) - timedelta(days=1) + TICK
    for at in moments():
        while drops and drops[0][0] <= at:
            when, _, drop = drops.pop(0)
            drop(when)
        replay.now = at
        replay.end_runs()
        # The worst order: after an outage the sensors are the first to look.
        is_tick = (at.hour, at.minute) == (1, 30)
        for source in replay.plan.sources.values():
            if not is_tick:
                replay.look(source)
            if is_tick or at in ends:
                missed = [morning(d, 0, 0) + TICK for d in days_between(ticked.date(), at.date())]
                for tick in [one for one in missed if ticked < one <= at][-MADE_UP:]:
                    replay.tick(source, tick)
        if is_tick or at in ends:
            ticked = at

    rows, wrong = report(stories, replay)
    (tmp_path / "truth_and_runs.txt").write_text("\n".join(rows), encoding="utf-8")
    assert wrong == [], "\n".join(wrong)
    # Late by two hours is not late by six, a closed Saturday never is; the last day is after the story.
    after = {END + timedelta(days=1)}
    assert replay.late == {
        "named": {march(9).date(), march(22).date()} | after,
        "footers": after,
        "growing": {march(31).date(), april(1).date(), april(2).date()} | after,
    }


def report(stories: Mapping[str, Story], replay: Replay) -> tuple[list[str], list[str]]:
    """Return the truth and the runs side by side, and where they differ."""
    rows = [f"{'source':<9}{'day':<12}{'data there':<18}{'asked for':<18}by"]
    wrong: list[str] = []
    possible = moments()
    asked: dict[tuple[str, date], list[tuple[datetime, str]]] = {}
    for name, day, moment, who in replay.asked:
        asked.setdefault((name, day), []).append((moment, who))
    due = {(name, day) for name, story in stories.items() for day in story.truth}
    for name, day in sorted(due | asked.keys()):
        truth = sorted(stories[name].truth.get(day, []))
        found = asked.get((name, day), [])
        for number in range(max(len(truth), len(found))):
            there = truth[number] if number < len(truth) else None
            at = found[number][0] if number < len(found) else None
            by = found[number][1] if number < len(found) else ""
            row = f"{name:<9}{day!s:<12}{_text(there):<18}{_text(at):<18}{by}"
            rows.append(row)
            if there is None or at is None or at != _expected(day, there, number, possible):
                wrong.append(f"{row}   !")
    return rows, wrong


def _text(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _expected(day: date, there: datetime, number: int, possible: list[datetime]) -> datetime:
    """Return the first moment at which a day could be asked for, by hand from the rules."""
    tick = morning(day, 24, 0) + TICK
    if number == 0 and is_up(tick) and there + SETTLED <= tick:
        return tick
    earliest = there + SETTLED
    if number == 0:
        earliest = max(earliest, tick + timedelta(minutes=5))
    at = possible[bisect_left(possible, earliest)]
    # The first of two looks after a pause leaves what was never built to ticks that are made up for.
    # What these do not ask for lies in their windows' reach.
    is_first_look = f"{at:%H:%M}" in LOOKS and at not in {up for _, up in OUTAGES}
    return at + timedelta(minutes=5) if number == 0 and is_first_look else at
