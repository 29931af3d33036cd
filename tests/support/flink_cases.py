"""Generated topics for the tests of Flink jobs: records of every kind and the tiles they make."""

import base64
import json
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from millrace.aggregates import Edge, Place
from millrace.durations import DAY_MS
from millrace.expressions import evaluate
from millrace.plan import SourcePlan, ViewPlan
from millrace.tiles import TILE_START, Tile, TileEvent, build_tile, tile_columns, tile_start_ms
from millrace.types import DataType
from tests.reference import Event, judge

PARTITIONS = 4
# One holds most, as the partition of a hot key does: readers come out of step.
_PLACES = [0, 0, 0, 0, 0, 1, 2, 3]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]

MALFORMED = [
    None,
    b"",
    b"{",
    b"[1]",
    b'{"a":1}x',
    b'{"a":NaN}',
    b'{"a":"\\ud800"}',
    b'{"a":"\xff"}',
    b"\xef\xbb\xbf{}",
]


@dataclass(frozen=True)
class Record:
    """One record of a topic; ``row`` holds its columns, None if the bytes are no event."""

    partition: int
    timestamp_ms: int
    value: bytes | None
    row: Row | None


def a_value(type_: DataType, chance: random.Random) -> Any:
    """Return a value of a type, often at an edge of its range, or null."""
    if chance.random() < 0.15:
        return None
    if type_.kind == "decimal":
        # Of the widest only a part of the range, so that no tile of these runs out of digits.
        digits = min(type_.precision, 35)
        return Decimal(chance.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-type_.scale)
    choices: Mapping[str, Sequence[Any]] = {
        "int32": [chance.randint(-3, 3), 2**31 - 1, -(2**31)],
        "int64": [chance.randint(-3, 3), 2**63 - 1, -(2**63)],
        "float64": [chance.uniform(-1e6, 1e6), 0.1, -0.0, 1e300, 5e-324],
        "bool": [True, False],
        "string": ["", "a", "ab", "é", "\U0001f600", "\uffee", 'a"\\\n\x7f'],
        "timestamp": [chance.randint(-(10**11), 10**12)],
        "date": [date(1969, 12, 1) + timedelta(days=chance.randint(0, 60))],
        "bytes": [b"", b"\x7f", b"\x80", b"a"],
        # Floats of 32 bits: 0.1 is the nearest one's double.
        "vector": [[chance.choice([0.0, -0.0, 0.10000000149011612, 1e5]) for _ in range(3)]],
    }
    return chance.choice(choices[type_.kind])


def as_json(value: Any, type_: DataType, chance: random.Random) -> Any:
    """Return a value in one of the spellings that a topic may have it in."""
    if value is None:
        return None
    if type_.kind == "decimal":
        return str(value) if chance.random() < 0.5 else _Number(f"{value:f}")
    if type_.kind == "timestamp" and chance.random() < 0.5:
        return (EPOCH + timedelta(milliseconds=value)).isoformat().replace("+00:00", "Z")
    if type_.kind == "date":
        return value.isoformat()
    if type_.kind == "bytes":
        return base64.b64encode(value).decode()
    return value


class _Number(str):
    """The text of a number, to be written without quotes."""

    __slots__ = ()


def as_bytes(row: Row, source: SourcePlan, chance: random.Random) -> bytes:
    """Write an event; a null column is left out at times."""
    fields = []
    for column in source.columns:
        value = as_json(row[column.name], column.type, chance)
        if value is None and chance.random() < 0.5:
            continue
        ascii_only = chance.random() < 0.5
        text = value if isinstance(value, _Number) else json.dumps(value, ensure_ascii=ascii_only)
        fields.append(f"{json.dumps(column.name)}:{text}")
    if chance.random() < 0.2:
        fields.insert(0, '"_other":{"deep":[1,{"x":1e999}]}')
    return ("{" + ",".join(fields) + "}").encode()


def some_records(view: ViewPlan, count: int, seed: int) -> list[Record]:
    """Return the records of a topic in order of arrival, of every kind that a topic can hold.

    Times lie around the view's start, keys and instants are few, so that tiles fill and ties
    occur. Copies of an event, and others that only share its id, are in any partition.
    """
    chance = random.Random(seed)
    source = view.source
    keys = {k: _keys(source.column(k).type, chance) for k in view.join_keys}
    now_ms = max(view.start_ms, 0) + 3 * view.tile_hop_ms
    records: list[Record] = []
    ids = 0
    while len(records) < count:
        now_ms += chance.choice([0, 0, 1, view.tile_hop_ms // 50])
        kind = chance.random()
        if kind < 0.03:
            value = chance.choice(MALFORMED)
            records.append(Record(chance.choice(_PLACES), now_ms, value, None))
            continue
        if kind < 0.08 and records and records[-1].row is not None:
            copied = chance.choice(records)
            if copied.row is not None:
                partition = chance.choice(_PLACES)
                records.append(Record(partition, now_ms, copied.value, copied.row))
            continue
        row = {c.name: a_value(c.type, chance) for c in source.columns}
        row |= {name: chance.choice(values) for name, values in keys.items()}
        row[source.event_time] = _as_time(_event_ms(view, now_ms, chance), source)
        if source.event_id is not None and chance.random() < 0.97:
            ids += 1
            is_text = source.column(source.event_id).type.kind == "string"
            row[source.event_id] = f"p{ids}" if is_text else ids
        value = as_bytes(row, source, chance)
        if kind < 0.10:
            value, row[source.event_time] = b'{"%s":"no"}' % source.event_time.encode(), None
        partition = chance.choice(_PLACES)
        records.append(Record(partition, now_ms, value, row))
    return records


def _keys(type_: DataType, chance: random.Random) -> list[Any]:
    if type_.kind == "string":
        return ["a", 'é"', "", None]
    return [1, -7, chance.randint(0, 2**31 - 2), None]


def sentinels(view: ViewPlan, mark: int) -> set[tuple[Any, ...]]:
    """Return the join keys of the events of ``end_records``; no other event has them."""
    return {_sentinel(view, mark, partition) for partition in range(PARTITIONS)}


def _sentinel(view: ViewPlan, mark: int, partition: int) -> tuple[Any, ...]:
    number = 2**31 - 1 - mark * PARTITIONS - partition
    return tuple(f"end-{number}" if e.type.kind == "string" else number for e in view.entities)


def end_records(view: ViewPlan, records: Sequence[Record], mark: int) -> list[Record]:
    """Return an event for the end of each partition, by whose tile its end is known."""
    chance, now_ms = random.Random(mark), records[-1].timestamp_ms + 1
    ends = []
    for partition in range(PARTITIONS):
        row = {c.name: a_value(c.type, chance) for c in view.source.columns}
        row |= dict(zip(view.join_keys, _sentinel(view, mark, partition), strict=True))
        row |= {view.source.event_time: _as_time(now_ms, view.source), "amount": Decimal("1.00")}
        if view.source.event_id is not None:
            row[view.source.event_id] = None
        value = as_bytes(row, view.source, chance)
        ends.append(Record(partition, now_ms, value, row))
    return ends


def _event_ms(view: ViewPlan, now_ms: int, chance: random.Random) -> int:
    source, hop = view.source, view.tile_hop_ms
    late, skew = source.allowed_lateness_ms, source.clock_skew_ms
    return now_ms - chance.choice(
        [
            *(chance.randint(0, 2 * hop) // 7 * 7 for _ in range(6)),
            *(0, hop, late, late + 1, late - 1, -skew, -skew - 1, -1, chance.randint(0, 2 * late)),
        ]
    )


def _as_time(event_ms: int, source: SourcePlan) -> int | date:
    is_day = source.column(source.event_time).type.kind == "date"
    return (EPOCH + timedelta(milliseconds=event_ms)).date() if is_day else event_ms


def _as_ms(event_time: int | date | None) -> int | None:
    if isinstance(event_time, date):
        return (event_time - EPOCH.date()).days * DAY_MS
    return event_time


def expected_tiles(view: ViewPlan, records: Sequence[Record]) -> dict[tuple[Any, ...], Tile]:
    """Return the tiles by join keys and start, of the events that the reference accepts."""
    source = view.source
    rows = [r for r in records if r.row is not None]
    events = [
        Event(
            key=None,
            event_ms=_as_ms(r.row[source.event_time]),
            ingest_ms=r.timestamp_ms,
            value=r.row,
            event_id=r.row[source.event_id] if source.event_id else None,
        )
        for r in rows
        if r.row is not None
    ]
    judged = judge(
        events,
        allowed_lateness_ms=source.allowed_lateness_ms,
        clock_skew_ms=source.clock_skew_ms,
        dedup_horizon_ms=source.dedup_horizon_ms if source.event_id else None,
    )
    held: dict[tuple[Any, ...], list[TileEvent]] = defaultdict(list)
    for verdict, event in judged:
        row = event.value
        assert isinstance(row, dict)
        key = tuple(row[name] for name in view.join_keys)
        if verdict != "accepted" or event.event_ms is None or event.event_ms < view.start_ms:
            continue
        if None in key or (view.filter is not None and evaluate(view.filter, row) is not True):
            continue
        place = Place(event.event_ms, event.ingest_ms, event.event_id)
        measures = {m.name: evaluate(m.expression, row) for m in view.measures}
        tile = tile_start_ms(event.event_ms, view.tile_hop_ms)
        held[*key, tile].append(TileEvent(place, measures))
    return {key: build_tile(view, events) for key, events in held.items()}


def tile_key(view: ViewPlan, key: bytes) -> tuple[Any, ...]:
    """Read the key of a record of a tile topic."""
    document = json.loads(key, parse_float=Decimal)
    assert list(document) == [*view.join_keys, TILE_START]
    return tuple(document.values())


def read_tile(view: ViewPlan, value: bytes) -> Tile:
    """Read the value of a record of a tile topic."""
    document = json.loads(value, parse_float=Decimal)
    tile: dict[str, Any] = {}
    for column in tile_columns(view):
        found = document[column.name]
        if column.partial.holds_edge and found is not None:
            id_type = _id_type(view)
            event_id = None if id_type is None else _typed(found["event_id"], id_type)
            kept = _typed(found["value"], column.type)
            tile[column.name] = Edge(found["event_ms"], found["ingest_ms"], event_id, kept)
        else:
            tile[column.name] = _typed(found, column.type)
    return tile


def _id_type(view: ViewPlan) -> DataType | None:
    event_id = view.source.event_id
    return None if event_id is None else view.source.column(event_id).type


def _typed(value: Any, type_: DataType) -> Any:
    if value is None:
        return None
    readers: Mapping[str, Callable[[Any], Any]] = {
        "decimal": Decimal,
        "float64": float,
        "date": date.fromisoformat,
        "bytes": base64.b64decode,
        # The shortest texts of floats of 32 bits.
        "vector": lambda v: [struct.unpack("f", struct.pack("f", one))[0] for one in v],
        "list": lambda v: [float(one) for one in v],
    }
    read = readers.get(type_.kind)
    return value if read is None else read(value)
