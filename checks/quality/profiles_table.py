"""``profiles/<table>``: what is known of each day of a table, and what its checks found.

One row per day and column, and one with ``column`` null for the day as a whole; a day is replaced
as one. Written by delta-rs alone, and not partitioned: a day is a few kilobytes and weeks are read at
a time, so a file for each costs five times as much. (A table that is partitioned stays so.)
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from millrace.names import profiles_table
from millrace.quality.profile import ROW_TYPES, DayProfile
from resources.lake.delta import DAY_COLUMN, file_actions, open_table, own_files, rs_path
from resources.lake.options import storage_options
from resources.lake.writing import day_predicate
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

Document = Mapping[str, Any]


@dataclass(frozen=True)
class StoredDay:
    """One day of a ``profiles`` table.

    Attributes:
        profile: what was counted.
        files: names the Delta files that the profile was made of (``day_files``).
        findings: what the rules said of the day, as ``Finding.document``.
    """

    profile: DayProfile
    files: str
    findings: tuple[Document, ...] = field(default=())


def day_files(settings: Settings, table: str) -> dict[date, str]:
    """Return for each day of a table a digest of the files that hold it; no file is opened.

    A day that was rewritten has other files, and so another digest.
    """
    opened = open_table(settings, table)
    if opened is None:
        return {}
    by_day: dict[date, list[str]] = {}
    for row in file_actions(opened, "path").to_pylist():
        by_day.setdefault(row[DAY_COLUMN], []).append(row["path"])
    return {
        day: hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest()[:16]
        for day, paths in by_day.items()
    }


def write_profiles(settings: Settings, table: str, days: Sequence[StoredDay]) -> None:
    """Replace these days of ``profiles/<table>``, atomically; the others stay."""
    from deltalake import write_deltalake

    if not days:
        return
    write_deltalake(
        rs_path(settings, profiles_table(table)),
        _arrow([row for day in days for row in _rows(day)]),
        mode="overwrite",
        storage_options=storage_options(settings),
        predicate=day_predicate([day.profile.day for day in days]),
    )


def read_profiles(settings: Settings, table: str, days: Collection[date]) -> dict[date, StoredDay]:
    """Return those of ``days`` that have a profile."""
    opened = open_table(settings, profiles_table(table))
    if opened is None or not days:
        return {}
    wanted = [("event_date", "in", sorted(days))]
    by_day: dict[date, list[dict[str, Any]]] = {}
    for row in opened.to_pyarrow_table(filters=wanted, filesystem=own_files(opened)).to_pylist():
        by_day.setdefault(row["event_date"], []).append(row)
    return {day: _stored(table, rows) for day, rows in sorted(by_day.items())}


def read_findings(
    settings: Settings, table: str, since: date | None = None
) -> dict[date, tuple[Document, ...]]:
    """Return what the rules said of each judged day of a table, as ``Finding.document``; ascending.

    Only this column is read. ``since`` is the first day wanted; None: all.
    """
    opened = open_table(settings, profiles_table(table))
    if opened is None:
        return {}
    columns = ["event_date", "position", "findings"]
    wanted = None if since is None else [("event_date", ">=", since)]
    rows = opened.to_pyarrow_table(
        columns=columns, filters=wanted, filesystem=own_files(opened)
    ).sort_by([("event_date", "ascending"), ("position", "ascending")])
    by_day: dict[date, tuple[Document, ...]] = {}
    for row in rows.to_pylist():
        before = by_day.get(row["event_date"], ())
        by_day[row["event_date"]] = (*before, *json.loads(row["findings"]))
    return by_day


def _rows(day: StoredDay) -> Iterator[dict[str, Any]]:
    for row in day.profile.as_rows():
        found = [dict(f) for f in day.findings if f["column"] == row["column"]]
        yield {**row, "files": day.files, "findings": json.dumps(found)}


def _stored(table: str, rows: Sequence[Mapping[str, Any]]) -> StoredDay:
    ordered = sorted(rows, key=lambda row: row["position"])
    found = tuple(finding for row in ordered for finding in json.loads(row["findings"]))
    return StoredDay(DayProfile.from_rows(table, ordered), ordered[0]["files"], found)


def _arrow(rows: Sequence[Mapping[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    kinds = {
        "date": pa.date32(),
        "string": pa.string(),
        "bytes": pa.binary(),
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "list<int64>": pa.list_(pa.int64()),
        "list<float64>": pa.list_(pa.float64()),
        "list<string>": pa.list_(pa.string()),
    }
    types = {**ROW_TYPES, "files": "string", "findings": "string"}
    return pa.table(
        {name: pa.array([row[name] for row in rows], kinds[kind]) for name, kind in types.items()}
    )
