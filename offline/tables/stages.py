"""What a build will do, a stage for each table: one list that is shown before, logged and executed.

``plan_build`` decides and touches nothing; ``read_state`` looks at the lake for it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any, Literal

from millrace.calendar import days_after, days_between
from millrace.days import ALL_HOURS, Days, Hours, day_list, days_by_reason
from millrace.durations import DAY_MS
from millrace.names import events_table, features_table
from millrace.plan import SourcePlan, ViewPlan
from offline.raw.arrivals import Arrivals
from offline.raw.files import Looks
from offline.tables.partition_log import (
    PartitionState,
    published_days,
    read_partition_logs,
    readable_days,
    whole_days,
)
from resources.lake.view_versions import known_fingerprints
from resources.settings import Settings

PartitionLog = Mapping[date, PartitionState]


@dataclass(frozen=True)
class Table:
    """A table that builds write: the events of a source, or the tiles or the values of a view."""

    kind: Literal["events", "tiles", "features"]
    source: SourcePlan
    view: ViewPlan | None = None

    @property
    def name(self) -> str:
        """Its name under the lake, without the version of a view."""
        return f"{self.kind}/{self.declared.name}"

    @property
    def declared(self) -> SourcePlan | ViewPlan:
        """What it is built by."""
        return self.view or self.source

    @property
    def of_view(self) -> ViewPlan:
        """The view of tiles or values; a fault of ours if there is none."""
        if self.view is None:
            raise ValueError(f"{self.name} is a source's")
        return self.view

    def named(self, version: str | None) -> str:
        """Return its name under the lake; ``version`` is that of a view, ``v1``."""
        return f"{self.name}/{version}" if version else self.name


def tables_of(source: SourcePlan, views: Sequence[ViewPlan]) -> Iterator[Table]:
    """Yield the tables of a source and of some of its views in the order in which they are built."""
    yield Table("events", source)
    for view in views:
        yield Table("tiles", source, view)
        yield Table("features", source, view)


@dataclass(frozen=True)
class LakeState:
    """What is there of a source and its views when a build of them is planned.

    Attributes:
        events: the log of ``events/<source>``.
        versions: view to the version that it is built as, which may be new.
        features: view to the log of that version's values.
        is_absent: tells of a day whether its raw files are known not to be there.
    """

    events: PartitionLog = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, PartitionLog] = field(default_factory=dict)
    is_absent: Callable[[date], bool] = lambda _: False


@dataclass(frozen=True)
class Stage:
    """What a build does to one table.

    Attributes:
        table: what is written.
        version: the view's; None for events.
        days: those of the days asked for that are written; None if none of them is.
        earlier: of events, days before them that were never built and that windows reach into.
        restated: of values, other days that were built without events which are there by then.
        early: days asked for before the view's start: empty partitions, and nothing is written.
        hours: the hours of those days that are not written as a whole.
        skipped: days asked for that are left as they are, with the reason.
    """

    table: Table
    version: str | None
    days: Days | None
    earlier: tuple[date, ...] = ()
    restated: tuple[date, ...] = ()
    early: tuple[date, ...] = ()
    hours: Mapping[date, Hours] = field(default_factory=dict)
    skipped: Mapping[date, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The table's name under the lake."""
        return self.table.named(self.version)

    @property
    def written(self) -> tuple[date, ...]:
        """All days that are written."""
        return (*self.earlier, *(self.days or ()), *self.restated)

    def lines(self) -> Iterator[str]:
        """Yield in words which days are written, which are not, and why."""
        if self.days is not None:
            yield f"{self.name}: {len(self.days)} day(s) {_span(self.days)}, as asked"
        if self.earlier:
            yield (
                f"{self.name}: {len(self.earlier)} earlier day(s), which windows reach into: "
                f"{day_list(self.earlier)}"
            )
        if self.restated:
            yield (
                f"{self.name}: {len(self.restated)} other day(s) restated, which had missed events: "
                f"{day_list(self.restated)}"
            )
        if self.early:
            yield f"{self.name}: empty before the view's start: {day_list(self.early)}"
        for reason, days in days_by_reason(self.skipped.items()).items():
            yield f"{self.name}: not built: {days}: {reason}"

    def as_json(self) -> dict[str, Any]:
        """Return the stage as plain JSON values."""
        return {
            "table": self.name,
            "days": [day.isoformat() for day in self.days or ()],
            "earlier": [day.isoformat() for day in self.earlier],
            "restated": [day.isoformat() for day in self.restated],
            "early": [day.isoformat() for day in self.early],
            "hours": {str(day): [some.start, some.stop] for day, some in self.hours.items()},
            "skipped": {str(day): reason for day, reason in self.skipped.items()},
            "why": list(self.lines()),
        }


def plan_build(
    lake: LakeState,
    source: SourcePlan,
    views: Sequence[ViewPlan],
    days: Days,
    *,
    tables: Collection[str] | None = None,
    skipped: Mapping[str, Mapping[date, str]] | None = None,
) -> tuple[Stage, ...]:
    """Return what a build of a range of days does to each table, in the order in which it is done.

    Args:
        lake: what is there.
        source: whose events are built.
        views: those whose windows events must reach back for, and whose tables are built.
        days: what was asked for.
        tables: names (``Table.name``) of the tables that are built; None for all.
        skipped: by the table's name, days that are left as they are, with the reason.
    """
    stages = []
    written: frozenset[date] = frozenset()
    for table in tables_of(source, views):
        if tables is not None and table.name not in tables:
            continue
        left = (skipped or {}).get(table.name, {})
        kept = [day for day in days if day not in left]
        if table.view is None:
            stage = _events_stage(lake, table, views, days, kept, left)
            written = frozenset(stage.written)
        else:
            stage = _view_stage(lake, table, table.view, days, kept, left, written)
        stages.append(stage)
    return tuple(stages)


def read_state(
    settings: Settings,
    source: SourcePlan,
    views: Sequence[ViewPlan],
    *,
    known: Looks | None = None,
) -> LakeState:
    """Look at the lake for ``plan_build``; at raw files only if it asks for a day that lacks.

    ``known`` are looks into files of before, which are added to.
    """
    fingerprints = known_fingerprints(settings)
    versions = {view.name: _version(view, fingerprints.get(view.name, ())) for view in views}
    events = events_table(source.name)
    features = {name: features_table(name, version) for name, version in versions.items()}
    logs = read_partition_logs(settings, [events, *features.values()])

    @cache
    def arrivals() -> Arrivals:
        return Arrivals.look(source, settings, known=known)

    def is_absent(day: date) -> bool:
        # A topic may bring any day at any time.
        is_of_files = source.batch is not None and source.stream is None
        return is_of_files and day not in source.empty_days and arrivals().is_known_absent(day)

    return LakeState(
        logs[events], versions, {name: logs[table] for name, table in features.items()}, is_absent
    )


def history_start(view: ViewPlan, day: date) -> date:
    """Return the first day whose events can enter a value on ``day``."""
    if view.reach_ms is None:
        return min(view.start, day)
    reach_days = -(-view.reach_ms // DAY_MS)
    return min(max(view.start, days_after(day, -reach_days)), day)


def _version(view: ViewPlan, known: Sequence[str]) -> str:
    """Return the version of a view's definition; the next one if it is new to the lake."""
    place = known.index(view.fingerprint) if view.fingerprint in known else len(known)
    return f"v{place + 1}"


def _events_stage(
    lake: LakeState,
    table: Table,
    views: Sequence[ViewPlan],
    days: Days,
    kept: Sequence[date],
    skipped: Mapping[date, str],
) -> Stage:
    """Plan the days asked for, and those before them that views reach into and that were never built.

    A day whose files are known not to be there would be built as empty, and told as such: it is left
    out, and what needs it says that it is without it.
    """
    if not kept:
        return Stage(table, None, None, skipped=skipped)
    wanted, log = days.only(kept), lake.events
    whole = whole_days(log, table.source.fingerprint)
    earliest = min((history_start(view, wanted.start) for view in views), default=wanted.start)
    missing = (day for day in days_between(earliest, wanted.start)[:-1] if day not in whole)
    hours = wanted.parts
    if wanted.start in hours:
        first = _first_hour_missing(
            log.get(wanted.start), table.source.fingerprint, wanted.from_hour
        )
        hours[wanted.start] = range(first, hours[wanted.start].stop)
    earlier = tuple(day for day in missing if not lake.is_absent(day))
    return Stage(table, None, wanted, earlier, hours=hours, skipped=skipped)


def _first_hour_missing(state: PartitionState | None, fingerprint: str, until: int) -> int:
    """Return the first hour before ``until`` that is not there; ``until`` if there is none."""
    if state is None or state.fingerprint != fingerprint:
        return 0
    return next((hour for hour in range(until) if state.lacks(range(hour, hour + 1))), until)


def _view_stage(
    lake: LakeState,
    table: Table,
    view: ViewPlan,
    days: Days,
    kept: Sequence[date],
    skipped: Mapping[date, str],
    events_written: frozenset[date],
) -> Stage:
    version = lake.versions[view.name]
    early = tuple(day for day in kept if day < view.start)
    built = kept[len(early) :]
    if not built:
        return Stage(table, version, None, early=early, skipped=skipped)
    wanted = days.only(built)
    hours = wanted.parts
    restated: dict[date, Hours] = {}
    if table.kind == "features":
        restated = _restated(lake, view, events_written)
    for day, some in restated.items():
        if day not in wanted:
            hours[day] = some
        elif day in hours:
            hours[day] = range(min(some.start, hours[day].start), max(some.stop, hours[day].stop))
    return Stage(
        table,
        version,
        wanted,
        restated=tuple(day for day in restated if day not in wanted),
        early=early,
        hours={day: some for day, some in hours.items() if some != ALL_HOURS},
        skipped=skipped,
    )


def _restated(
    lake: LakeState, view: ViewPlan, events_written: frozenset[date]
) -> dict[date, Hours]:
    """Return the built days that had missed events which are there now, or are built before.

    A day whose own events are bad by now stays as it stands: nobody asked for it, and those who mend
    its events build it anew.
    """
    fingerprint = view.source.fingerprint
    published = published_days(lake.events, fingerprint) | events_written
    readable = readable_days(lake.events, fingerprint)
    return {
        day: state.hours
        for day, state in sorted(lake.features[view.name].items())
        if state.error is None
        and published.intersection(state.missing_days)
        and (day in events_written or (day in readable and not lake.events[day].lacks(state.hours)))
    }


def _span(days: Days) -> str:
    return day_list(list(days)) if days.left_out else str(days)
