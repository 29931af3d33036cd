"""Which entities an audit asks about: busy ones, quiet ones, and some that nobody ever saw."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from millrace.plan import ViewPlan
from millrace.types import DataType
from resources.lake import open_table, partition_stats
from resources.online_api import Key
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["recent", "older", "unknown"]

RECENT_DAYS = 2
OLDER_DAYS = 3
"""Of older history so many days, drawn by lot, are looked into."""

_UNKNOWN_SHARE = 0.05
_OLDER_SHARE = 0.3
_MOST_ROWS = 200_000


@dataclass(frozen=True)
class SampledKey:
    """An entity to ask about: its join-key values in declared order, and why it was chosen."""

    key: Key
    kind: Kind


def sample_keys(settings: Settings, view: ViewPlan, samples: int, seed: int) -> list[SampledKey]:
    """Choose entities from ``events/<source>``.

    ``recent`` ones have an event in the newest two days, half of them the very newest events;
    ``older`` ones have events in earlier days and none in these, so batch tiles alone answer for
    them where history was uploaded; ``unknown`` ones have no event in any day looked at. Where a
    kind has too few, the others fill up.

    Args:
        settings: where the lake is.
        view: whose entities.
        samples: how many; at least one is unknown.
        seed: the same seed and lake give the same sample.
    """
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    days = sorted(partition_stats(settings, f"events/{view.source.name}"))
    recent = _keys_of(settings, view, days[-RECENT_DAYS:])
    older_days = draw.sample(days[:-RECENT_DAYS], min(OLDER_DAYS, len(days[:-RECENT_DAYS])))
    seen = set(recent)
    older = [key for key in _keys_of(settings, view, older_days) if key not in seen]
    unknown = _unknown_keys(view, {*recent, *older}, max(1, int(samples * _UNKNOWN_SHARE)), draw)
    wanted = max(0, samples - len(unknown))
    from_older = min(len(older), max(int(wanted * _OLDER_SHARE), wanted - len(recent)))
    newest = recent[: (wanted - from_older + 1) // 2]
    rest = recent[len(newest) :]
    others = draw.sample(rest, min(len(rest), wanted - from_older - len(newest)))
    return [
        *(SampledKey(key, "recent") for key in (*newest, *others)),
        *(SampledKey(key, "older") for key in draw.sample(older, from_older)),
        *(SampledKey(key, "unknown") for key in unknown),
    ]


def _keys_of(settings: Settings, view: ViewPlan, days: Iterable[date]) -> list[Key]:
    """Return the entities of some days, those whose events came last first."""
    import pyarrow.compute as pc
    from pyarrow.dataset import field

    table = open_table(settings, f"events/{view.source.name}")
    wanted = list(days)
    if table is None or not wanted:
        return []
    columns = [*view.join_keys, "_ingest_ms"]
    dataset = table.to_pyarrow_dataset()
    rows = dataset.to_table(columns=columns, filter=field("event_date").isin(wanted))
    for name in view.join_keys:
        rows = rows.filter(pc.is_valid(rows.column(name)))
    newest = rows.take(pc.sort_indices(rows, [("_ingest_ms", "descending")])[:_MOST_ROWS])
    columns_read = [key_values(newest.column(e.join_key), e.type) for e in view.entities]
    return list(dict.fromkeys(zip(*columns_read, strict=True)))


def key_values(column: "pa.ChunkedArray", type_: DataType) -> list[Any]:
    """Return a key column as plain values; instants as epoch milliseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if type_.kind != "timestamp":
        return list(column.to_pylist())
    ticks = column.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    return list(pc.cast(ticks, pa.int64()).to_pylist())


def _unknown_keys(view: ViewPlan, known: set[Key], count: int, draw: random.Random) -> list[Key]:
    kinds = {entity.type.kind for entity in view.entities}
    if kinds == {"bool"}:
        return []  # there are but two, and both may be known
    found: dict[Key, None] = {}
    while len(found) < count:
        key = tuple(_unlikely(entity.type, draw) for entity in view.entities)
        if key not in known:
            found[key] = None
    return list(found)


def _unlikely(type_: DataType, draw: random.Random) -> Any:
    """Return a value of a type that an entity is unlikely to have."""
    name = f"nobody-{draw.getrandbits(40):010x}"
    values = {
        "int32": draw.randint(-(2**31), -(2**30)),
        "int64": draw.randint(-(2**62), -(2**61)),
        "float64": -draw.random(),
        "decimal": Decimal(draw.randint(0, 10**type_.precision - 1)).scaleb(-type_.scale),
        "bool": bool(draw.getrandbits(1)),
        "string": name,
        "bytes": name.encode(),
        "timestamp": -draw.randint(1, 10**11),
        "date": date(1900, 1, 1) + timedelta(days=draw.randint(0, 20_000)),
    }
    return values[type_.kind]
