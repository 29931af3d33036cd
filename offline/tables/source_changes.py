"""What a declaration changes in the tables of a source that another one wrote.

``events/<source>`` keeps its address while its declaration changes. The table always stands by one
declaration, the newest entry of ``<lake>/source_definitions``: a build, or the archive, by another
one first makes the table follow (``offline.tables.source_tables``). Everything here is read from Delta's
logs; no event is.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from millrace.errors import PlanError
from millrace.names import events_table
from millrace.plan import Column, SourcePlan
from millrace.types import DataType, parse_type
from offline.tables.archived_days import archived_rows
from resources.lake.delta import DAY_COLUMN, file_actions, open_table, read_rows, rs_path
from resources.lake.options import storage_options
from resources.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

TABLE = "source_definitions"

PLATFORM_COLUMNS = ("_event_ms", "_ingest_ms", "_partition", "_offset", "event_date")
"""The columns of an events table behind the declared ones."""

_DELTA_TYPES = {
    "integer": "int32",
    "long": "int64",
    "double": "float64",
    "boolean": "bool",
    "binary": "bytes",
}
_EXACT_CASTS: Mapping[str, frozenset[str]] = {
    "int32": frozenset({"int64", "float64", "decimal", "string"}),
    "int64": frozenset({"int32", "float64", "decimal", "string", "timestamp"}),
    "decimal": frozenset({"int32", "int64", "float64", "decimal", "string"}),
    "float64": frozenset({"int32", "int64", "decimal"}),
    "string": frozenset({"int32", "int64"}),
    "date": frozenset({"timestamp", "string"}),
    "timestamp": frozenset({"date", "int64"}),
}
"""Which kinds a stored value may go over to, as long as it comes back the same."""

_LIMITS = {"int32": 2**31, "int64": 2**63}


@dataclass(frozen=True)
class Definition:
    """The declaration that a source's tables stand by."""

    fingerprint: str
    columns: tuple[Column, ...]
    event_time: str
    event_id: str | None


@dataclass(frozen=True)
class SourceChange:
    """What a declaration changes in the tables of its source.

    Attributes:
        stands: the declaration they stand by; None where no table was written yet.
        moved: columns whose stored values go over to another type or name: as the table has
            them, and as they are declared.
        added: columns that the table has yet to be given.
        dropped: columns of the table that are declared no more; their values stay.
        reread: columns that are read from another field now, and the field that they were read from.
    """

    stands: Definition | None
    moved: tuple[tuple[Column, Column], ...] = ()
    added: tuple[Column, ...] = ()
    dropped: tuple[Column, ...] = ()
    reread: tuple[tuple[Column, str], ...] = ()

    def renamed(self, name: str) -> str:
        """Return what a column of the former declaration is called now."""
        return next((now.name for was, now in self.moved if was.name == name), name)

    def lines(self) -> list[str]:
        """Return one line of words for each column that changes."""
        return [
            *(moved_text(was, now) for was, now in self.moved),
            *(f"{c.name} is read from {c.origin}, and was from {f}" for c, f in self.reread),
            *(f"{c.name} {c.type} is new: events of before have none" for c in self.added),
            *(f"{c.name} {c.type} is declared no more: old values stay" for c in self.dropped),
        ]


def moved_text(was: Column, now: Column) -> str:
    """Return what becomes of a column, in words."""
    name = "" if was.name == now.name else f"{now.name} "
    return f"{was.name} {was.type} becomes {name}{now.type}"


def find_change(settings: Settings, source: SourcePlan) -> SourceChange:
    """Compare the declaration of a source with what its events table stands by."""
    opened = open_table(settings, events_table(source.name))
    if opened is None:
        return SourceChange(None)
    history = _definitions(settings, source.name)
    stored = stored_types(opened, _vectors(source.columns, *(d.columns for d in history)))
    undefined = Definition(
        fingerprint="",
        columns=tuple(Column(name, type_) for name, type_ in stored.items()),
        event_time=source.event_time,
        event_id=source.event_id,
    )
    stands = history[-1] if history else undefined
    formers = _formers(source, stands, stored)
    pairs = [
        (Column(formers[c.name], stored[formers[c.name]]), c)
        for c in source.columns
        if c.name in formers
    ]
    before = {column.name: column.origin for column in stands.columns}
    used = set(formers.values())
    declared = {column.name for column in source.columns}
    return SourceChange(
        stands,
        moved=tuple((was, c) for was, c in pairs if (was.name, was.type) != (c.name, c.type)),
        added=tuple(c for c in source.columns if c.name not in formers),
        dropped=tuple(
            Column(c.name, stored[c.name])
            for c in stands.columns
            if c.name in stored and c.name not in declared | used
        ),
        reread=tuple(
            (c, before[c.name])
            for was, c in pairs
            if was.name == c.name and before.get(c.name, c.origin) != c.origin
        ),
    )


def _formers(
    source: SourcePlan, stands: Definition, stored: Mapping[str, DataType]
) -> dict[str, str]:
    """Return for each declared column the one of the table that holds its values, if there is one.

    That is the column of its name if that was read from the same field, else another one that was: it
    was renamed. Where no column was, it is the one of its name, unless that was renamed.
    """
    origins = {c.name: c.origin for c in stands.columns if c.name in stored}
    found = {c.name: c.name for c in source.columns if origins.get(c.name) == c.origin}
    free = {origin: name for name, origin in origins.items() if name not in found}
    for column in source.columns:
        if column.name not in found and column.origin in free:
            found[column.name] = free.pop(column.origin)
    taken = set(found.values())
    own = [c.name for c in source.columns if c.name in stored and c.name not in found]
    return {**found, **{name: name for name in own if name not in taken}}


def stored_types(
    table: "DeltaTable", vectors: Mapping[str, DataType] = MappingProxyType({})
) -> dict[str, DataType]:
    """Return the columns of a table that are not the platform's, with their types.

    A table does not tell how long its vectors are: those that are not among ``vectors`` are left out.
    """
    types: dict[str, DataType] = {}
    for field in table.schema().fields:
        name = str(getattr(field.type, "type", field.type))
        if name == "array":
            types |= {field.name: vectors[field.name]} if field.name in vectors else {}
        elif field.name not in PLATFORM_COLUMNS:
            types[field.name] = parse_type(_DELTA_TYPES.get(name, name))
    return types


def _vectors(*declarations: Iterable[Column]) -> dict[str, DataType]:
    """Return the types of the vectors among declared columns; the last to declare one decides."""
    return {c.name: c.type for columns in declarations for c in columns if c.type.kind == "vector"}


def _definitions(settings: Settings, source: str) -> list[Definition]:
    """Return the definitions that were recorded of a source, the newest last."""
    table = open_table(settings, TABLE)
    if table is None:
        return []
    rows = read_rows(table, {"source": [source]}).to_pylist()
    return [_read_definition(row) for row in sorted(rows, key=lambda row: row["recorded_us"])]


def _read_definition(row: Mapping[str, Any]) -> Definition:
    document = json.loads(row["definition"])
    return Definition(
        fingerprint=row["fingerprint"],
        columns=tuple(
            Column(name, parse_type(type_), None if origin == name else origin)
            for name, type_, origin in document["columns"]
        ),
        event_time=document["event_time"],
        event_id=document["event_id"],
    )


def record_definition(settings: Settings, source: SourcePlan) -> None:
    """Say that the tables of a source stand by this declaration from now on.

    Written after they do; a crash between the two makes them follow once more, which changes
    nothing.
    """
    import pyarrow as pa
    from deltalake import write_deltalake

    history = _definitions(settings, source.name)
    if history and _means_the_same(history[-1], source):
        return
    definition = {
        "columns": [[c.name, str(c.type), c.origin] for c in source.columns],
        "event_time": source.event_time,
        "event_id": source.event_id,
    }
    row = {
        "source": [source.name],
        "fingerprint": [source.fingerprint],
        "definition": [json.dumps(definition)],
        "recorded_us": [int(datetime.now(tz=UTC).timestamp() * 1_000_000)],
    }
    write_deltalake(
        rs_path(settings, TABLE),
        pa.table(row),
        mode="append",
        storage_options=storage_options(settings),
    )


def _means_the_same(stands: Definition, source: SourcePlan) -> bool:
    return (stands.columns, stands.event_time, stands.event_id) == (
        tuple(Column(c.name, c.type, c.renamed_from) for c in source.columns),
        source.event_time,
        source.event_id,
    )


def refuse_what_cannot_be(
    settings: Settings,
    source: SourcePlan,
    change: SourceChange,
    *,
    rebuilt: Collection[date] = (),
) -> tuple[tuple[Column, Column], ...]:
    """Refuse a change that would lose what stays; return the columns the log cannot decide about.

    The statistics of the log tell the greatest and the least value of each file, which is enough
    for integers and decimals. Other values are looked at, one by one, by the build.

    Args:
        settings: the lake.
        source: the declaration.
        change: what it changes.
        rebuilt: days that are built anew; what files gave them does not stay.

    Raises:
        PlanError: a stored value has no place in the new type, or archived events were classified
            by another event time, or hold another field in a column of this name.
    """
    archived = archived_rows(settings, source.name)
    stands = change.stands
    if stands is not None and archived and change.renamed(stands.event_time) != source.event_time:
        raise PlanError(
            f"event_time changes from {stands.event_time!r} to {source.event_time!r}, and "
            f"{sum(archived.values())} archived event(s) were classified by the former",
            where=f"source {source.name}",
            fix=f"keep `event_time: {stands.event_time}`, or declare a new source of another name "
            "over the same topic",
        )
    if archived and change.reread:
        column, former = change.reread[0]
        raise PlanError(
            f"{column.name} is read from {column.origin!r} now, and {sum(archived.values())} archived "
            f"event(s) hold what {former!r} said",
            where=f"source {source.name}",
            fix=f"give it another name, such as {column.name}_2: "
            f"{{type: {column.type}, from: {column.origin}}}",
        )
    kept = [
        file
        for file in _files(settings, source)
        if file.day not in rebuilt or (file.day in archived and file.has_values("_offset"))
    ]
    undecided = []
    for was, now in change.moved:
        holding = [file for file in kept if file.has_values(was.name)]
        fits = [_fits(was.type, now.type, *file.bounds(was.name)) for file in holding]
        if False in fits:
            days = sorted({file.day for file in holding})
            raise unfit(source, was, now, f"stored values of {was.name} of {_span(days)}")
        if None in fits:
            undecided.append((was, now))
    return tuple(undecided)


def unfit(source: SourcePlan, was: Column, now: Column, what: str) -> PlanError:
    """Return the refusal of a change of type, with the ways out of it."""
    return PlanError(
        f"{moved_text(was, now)}: {what} cannot become {now.type} unchanged",
        where=events_table(source.name),
        fix=f"keep `{now.name}: {was.type}`; or build the days that hold them anew in one go "
        "(millrace backfill VIEW --start D --end D), which replaces what came from files; or "
        f"declare a column of another name beside it: {{type: {now.type}, from: {now.origin}}}",
    )


@dataclass(frozen=True)
class _File:
    """What the log says of one file of an events table."""

    day: date
    row: Mapping[str, Any]

    def has_values(self, column: str) -> bool:
        nulls = self.row.get(f"null_count.{column}")
        # A file older than the column, or wider than statistics go, says nothing of it.
        return nulls is None or nulls < self.row["num_records"]

    def bounds(self, column: str) -> tuple[Any, Any]:
        return self.row.get(f"min.{column}"), self.row.get(f"max.{column}")


def _files(settings: Settings, source: SourcePlan) -> Iterator[_File]:
    opened = open_table(settings, events_table(source.name))
    if opened is not None:
        actions = file_actions(opened, "num_records", "null_count.", "min.", "max.")
        for row in actions.to_pylist():
            yield _File(row[DAY_COLUMN], row)


def goes_over_exactly(was: DataType, now: DataType) -> bool:
    """Whether values of one type may go over to another, as far as each comes back the same."""
    if was.kind == "vector":
        return was == now
    return was.kind == now.kind or now.kind in _EXACT_CASTS.get(was.kind, ())


def _fits(was: DataType, now: DataType, low: Any, high: Any) -> bool | None:
    """Tell whether all values between two bounds have a place; None if the bounds cannot tell."""
    if not goes_over_exactly(was, now):
        return False
    if not all(t.is_integer or t.kind == "decimal" for t in (was, now)):
        return True if was == now or (was.kind, now.kind) == ("int32", "float64") else None
    if now.scale < was.scale:
        return None
    if _most(was) <= _most(now):
        return True
    if low is None or high is None:
        return None
    # The least integer lies one further out than the greatest.
    least = -_most(now) - int(now.is_integer)
    return bool(least < Decimal(str(low)) and Decimal(str(high)) < _most(now))


def _most(type_: DataType) -> int:
    """Return what the values of an integer or decimal type stay below."""
    if type_.kind == "decimal":
        return int(10 ** (type_.precision - type_.scale))
    return _LIMITS[type_.kind]


def _span(days: list[date]) -> str:
    return f"{days[0]}" if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"
