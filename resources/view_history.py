"""How much of the history of views is as it is declared, read from the partition log alone.

Two things leave a day built and not what it should be: its definition is another one by now
("unsynced", as Dagster says), or it was built while earlier days that its windows reach into were
missing. Both are known of each day; here they are counted, with the command that mends them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from millrace.plan import ViewPlan
from resources.archived_days import events_table
from resources.lake import open_table, own_files
from resources.partition_log import TABLE, published_days, read_partition_log
from resources.reports import Days
from resources.settings import Settings
from resources.versions import known_fingerprints

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("table", "day", "fingerprint", "error", "missing_days", "built_at_us", "from_hour")
_NONE_MISSING = "[]"


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
            told.append(f"{_span(self.unsynced)} built from another definition")
        if self.incomplete:
            missing = f", {_span(self.absent)} missing" if self.absent else ""
            told.append(f"{_span(self.incomplete)} built without part of their window{missing}")
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
    entries = _newest_entries(settings, list(tables))
    return {
        view.name: _history(settings, view, fingerprints.get(view.name, ()), entries)
        for view in views
    }


def _versions(view: ViewPlan, known: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the table of the declared version, and that of the newest other one; None: neither."""
    names = [f"features/{view.name}/v{n}" for n, _ in enumerate(known, start=1)]
    own = names[known.index(view.fingerprint)] if view.fingerprint in known else None
    others = [name for name in names if name != own]
    return own, others[-1] if others else None


def _history(
    settings: Settings, view: ViewPlan, known: Sequence[str], entries: "Mapping[str, _Entries]"
) -> ViewHistory:
    own, former = _versions(view, known)
    stands = entries[own] if own is not None else _Entries()
    before = entries[former].days if former is not None else set()
    others = entries[events_table(view.source.name)].of_others(view.source.fingerprint)
    unsynced = (before - stands.days) | (others & (before | stands.days))
    unsynced = {day for day in unsynced if day >= view.start and view.source.has(day)}
    lacking = stands.lacking(view.fingerprint)
    absent: set[date] = set()
    if lacking:
        log = read_partition_log(settings, events_table(view.source.name))
        absent = {day for days in lacking.values() for day in days}
        absent -= published_days(log, view.source.fingerprint)
    return ViewHistory(
        view=view.name,
        built=len(stands.built(view.fingerprint) - unsynced),
        unsynced=tuple(sorted(unsynced)),
        incomplete=tuple(sorted(lacking.keys() - unsynced)),
        absent=tuple(sorted(absent)),
    )


@dataclass(frozen=True)
class _Entries:
    """The newest entry of each day of one table; columns side by side."""

    day: Sequence[date] = ()
    fingerprint: Sequence[str] = ()
    error: Sequence[str | None] = ()
    missing: Sequence[tuple[date, ...]] = ()

    @property
    def days(self) -> set[date]:
        return set(self.day)

    def built(self, fingerprint: str) -> set[date]:
        columns = zip(self.day, self.fingerprint, self.error, strict=True)
        return {day for day, by, error in columns if by == fingerprint and error is None}

    def of_others(self, fingerprint: str) -> set[date]:
        return {d for d, by in zip(self.day, self.fingerprint, strict=True) if by != fingerprint}

    def lacking(self, fingerprint: str) -> dict[date, tuple[date, ...]]:
        built = self.built(fingerprint)
        columns = zip(self.day, self.missing, strict=True)
        return {day: missing for day, missing in columns if missing and day in built}


def _newest_entries(settings: Settings, tables: Sequence[str]) -> dict[str, _Entries]:
    import json

    import pyarrow.compute as pc

    found = {table: _Entries() for table in tables}
    log = open_table(settings, TABLE)
    if log is None or not tables:
        return found
    rows = log.to_pyarrow_table(filters=[("table", "in", tables)], filesystem=own_files(log))
    rows = rows.select([name for name in _COLUMNS if name in rows.column_names])
    by_hour: set[str] = set()
    if "from_hour" in rows.column_names:
        of_hours = rows.filter(pc.is_valid(rows["from_hour"]))
        by_hour = set(pc.unique(of_hours["table"]).to_pylist())
    newest = _newest(rows)
    for table in set(pc.unique(newest["table"]).to_pylist()):
        if table in by_hour:
            # What was last said of each hour of a day is put together there.
            states = read_partition_log(settings, table).values()
            found[table] = _Entries(
                [s.day for s in states],
                [s.fingerprint for s in states],
                [s.error for s in states],
                [s.missing_days for s in states],
            )
            continue
        of_table = newest.filter(pc.equal(newest["table"], table))
        found[table] = _Entries(
            of_table["day"].to_pylist(),
            of_table["fingerprint"].to_pylist(),
            of_table["error"].to_pylist(),
            [
                ()
                if text == _NONE_MISSING
                else tuple(date.fromisoformat(day) for day in json.loads(text))
                for text in of_table["missing_days"].to_pylist()
            ],
        )
    return found


def _newest(rows: "pa.Table") -> "pa.Table":
    """Return the newest row of each table and day."""
    import numpy as np
    import pyarrow as pa

    if not rows.num_rows:
        return rows
    tables = rows["table"].combine_chunks().dictionary_encode().indices.to_numpy()
    days = rows["day"].cast(pa.int32()).to_numpy()
    order = np.lexsort((rows["built_at_us"].to_numpy(), days, tables))
    tables, days = tables[order], days[order]
    is_last = np.append((tables[1:] != tables[:-1]) | (days[1:] != days[:-1]), [True])
    return rows.take(pa.array(order[is_last]))


def _span(days: Sequence[date]) -> str:
    return f"{len(days)} day(s) of {Days.covering(days)}"


def _as_json(days: Sequence[date]) -> dict[str, Any]:
    first, last = (days[0].isoformat(), days[-1].isoformat()) if days else (None, None)
    return {"days": len(days), "first": first, "last": last}
