"""How much of the history of views is as it is declared, read from the partition log alone.

Two things leave a day built and not what it should be: its definition is another one by now
("unsynced", as Dagster says), or it was built while earlier days that its windows reach into were
missing. Both are known of each day; here they are counted, with the command that mends them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from millrace.days import Days, day_count
from millrace.names import events_table, features_table
from millrace.plan import ViewPlan
from offline.tables.partition_log import (
    PartitionState,
    built_days,
    published_days,
    read_partition_logs,
)
from resources.lake.view_versions import known_fingerprints
from resources.settings import Settings

PartitionLog = Mapping[date, PartitionState]


@dataclass(frozen=True)
class ViewHistory:
    """The built days of one view, and what is wrong with them.

    Attributes:
        built: days that stand as declared.
        unsynced: days that another definition built, of the view or of its source's events, and that
            are to be built again; ascending.
        incomplete: days that were built while earlier ones were missing that their windows reach
            into; ascending.
        absent: those of the missing days that are missing still; ascending. Once they are built,
            the incomplete days are restated with them.
    """

    view: str
    built: int = 0
    unsynced: tuple[date, ...] = ()
    incomplete: tuple[date, ...] = ()
    absent: tuple[date, ...] = ()

    @property
    def state(self) -> Literal["unbuilt", "unsynced", "incomplete", "ok"]:
        """Return the worst that is to be said."""
        if self.unsynced:
            return "unsynced"
        if self.incomplete:
            return "incomplete"
        return "ok" if self.built else "unbuilt"

    @property
    def command(self) -> str:
        """Return the command that mends it; empty where nothing is wrong."""
        # Of incomplete days it is the missing ones that are to be built.
        days = [*self.unsynced, *(self.absent or self.incomplete)]
        if not days:
            return ""
        span = Days.covering(days)
        return f"millrace backfill {self.view} --start {span.start} --end {span.end_text}"

    @property
    def detail(self) -> str:
        """Return what is wrong in words; empty if nothing is."""
        told = []
        if self.unsynced:
            told.append(f"{day_count(self.unsynced)} built from another definition")
        if self.incomplete:
            missing = f", {day_count(self.absent)} missing" if self.absent else ""
            told.append(f"{day_count(self.incomplete)} built without part of their window{missing}")
        return "; ".join(told)

    def as_json(self) -> dict[str, Any]:
        """Return the view's entry of ``status --json``."""
        return {
            "state": self.state,
            "built_days": self.built,
            "unsynced": _as_json(self.unsynced),
            "incomplete": _as_json(self.incomplete),
            "absent": _as_json(self.absent),
            "detail": self.detail,
            "command": self.command,
        }


def view_histories(settings: Settings, views: Iterable[ViewPlan]) -> dict[str, ViewHistory]:
    """Return how the history of each view stands, by name.

    The log is read once, whatever the number of views; nothing but the log is.
    """
    views = list(views)
    fingerprints = known_fingerprints(settings)
    tables: dict[str, None] = {}
    for view in views:
        tables[events_table(view.source.name)] = None
        tables |= dict.fromkeys(filter(None, _versions(view, fingerprints.get(view.name, ()))))
    logs = read_partition_logs(settings, list(tables))
    return {view.name: _history(view, fingerprints.get(view.name, ()), logs) for view in views}


def _versions(view: ViewPlan, known: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the table of the declared version, and that of the newest other one; None: neither."""
    names = [features_table(view.name, f"v{n}") for n, _ in enumerate(known, start=1)]
    own = names[known.index(view.fingerprint)] if view.fingerprint in known else None
    others = [name for name in names if name != own]
    return own, others[-1] if others else None


def _history(view: ViewPlan, known: Sequence[str], logs: Mapping[str, PartitionLog]) -> ViewHistory:
    own, former = _versions(view, known)
    stands = logs[own] if own is not None else {}
    before = set(logs[former]) if former is not None else set()
    events = logs[events_table(view.source.name)]
    others = {day for day, s in events.items() if s.fingerprint != view.source.fingerprint}
    unsynced = (before - stands.keys()) | (others & (before | stands.keys()))
    unsynced = {day for day in unsynced if day >= view.start and view.source.has(day)}
    lacking = _lacking(stands, view.fingerprint)
    absent = {day for days in lacking.values() for day in days}
    absent -= published_days(events, view.source.fingerprint)
    return ViewHistory(
        view=view.name,
        built=len(built_days(stands, view.fingerprint) - unsynced),
        unsynced=tuple(sorted(unsynced)),
        incomplete=tuple(sorted(lacking.keys() - unsynced)),
        absent=tuple(sorted(absent)),
    )


def _lacking(log: PartitionLog, fingerprint: str) -> dict[date, tuple[date, ...]]:
    """Return the days that stand by a definition and lack part of their windows, with what lacks."""
    return {
        day: log[day].missing_days for day in built_days(log, fingerprint) if log[day].missing_days
    }


def _as_json(days: Sequence[date]) -> dict[str, Any]:
    first, last = (days[0].isoformat(), days[-1].isoformat()) if days else (None, None)
    return {"days": len(days), "first": first, "last": last}
