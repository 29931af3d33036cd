"""Which entities an audit asks about: of all that offline knows, the rare and the old among them."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args

from checks.parity.history_served import ServedHistory
from checks.parity.known_entities import (
    EVENTS,
    IS_UNSERVED,
    LAST_DAY,
    MOST_LOCAL_EVENTS,
    NEWEST_MS,
    KnownEntities,
    candidates_on_spark,
    read_entities,
)
from millrace.calendar import day_number
from millrace.plan import ViewPlan
from millrace.types import DataType
from offline.tables.history import History
from resources.online_api import Key
from resources.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

Kind = Literal["unserved", "long_ago", "recent", "heavy", "rare", "older", "unknown"]
"""Why an entity is asked about; where several hold, the first.

An event in a day whose tiles are not online; the last event in the older half of the days with
events; an event in the newest two of them; ten times as many events as the mean; a single event;
none of these; no event at all.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

RECENT_DAYS = 2
HEAVY = 10
"""An entity with so many times the mean of events is a heavy one."""

_WEIGHTS: Mapping[Kind, int] = {
    "unserved": 5,
    "long_ago": 4,
    "recent": 5,
    "heavy": 1,
    "rare": 2,
    "older": 3,
}
_UNKNOWN_SHARE = 0.05
_TRIES = 20


@dataclass(frozen=True)
class SampledKey:
    """An entity to ask about: its join-key values in declared order, and why it was chosen."""

    key: Key
    kind: Kind


@dataclass(frozen=True)
class Sample:
    """The entities to ask about, and how many there are.

    Attributes:
        keys: by kind, in the order of ``KINDS``.
        known: entities with an event that counts for the view in a day within reach.
    """

    keys: tuple[SampledKey, ...]
    known: int


def sample_keys(
    settings: Settings,
    history: History,
    samples: int,
    seed: int,
    served: ServedHistory,
) -> Sample:
    """Choose entities among all that have an event within reach of a view's windows.

    Each kind gets its share, and what it cannot fill goes to the others. Within a kind the sample
    is spread evenly over the days of the last events, so that no stretch of history is passed
    over; of the recent ones, half are those whose events came last.

    Args:
        settings: where the lake is, and Spark for one that is too large for this process.
        history: the view and the days that its windows reach into.
        samples: how many; at least one is unknown.
        seed: the same seed and lake give the same sample.
        served: which days have events, and which of them the online values may lack.
    """
    import pyarrow as pa

    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    known = _known(settings, history, samples, seed, served.unserved)
    strata = _strata(known, [day_number(day) for day in served.read])
    wanted = max(0, samples - max(1, int(samples * _UNKNOWN_SHARE)))
    shares = share_out({kind: len(places) for kind, places in strata.items()}, wanted)
    view = history.view
    chosen: list[SampledKey] = []
    for kind, places in strata.items():
        drawn = _drawn(known, kind, places, shares[kind], draw)
        chosen += [
            SampledKey(key, kind)
            for key in _keys(view, known.rows.take(pa.array(drawn, pa.int64())))
        ]
    unknown = _unknown_keys(view, {one.key for one in chosen}, max(1, samples - wanted), draw)
    return Sample((*chosen, *(SampledKey(key, "unknown") for key in unknown)), known.count)


def share_out(sizes: Mapping[Kind, int], wanted: int) -> dict[Kind, int]:
    """Share a number out by weight; what a kind is too small for goes to the others.

    >>> share_out({"recent": 100, "older": 2}, 12)
    {'recent': 10, 'older': 2}
    """
    given = dict.fromkeys(sizes, 0)
    left = min(wanted, sum(sizes.values()))
    while left:
        unfilled = [kind for kind in sizes if given[kind] < sizes[kind]]
        weight, round_of = sum(_WEIGHTS[kind] for kind in unfilled), left
        for kind in unfilled:
            share = max(1, round_of * _WEIGHTS[kind] // weight)
            more = min(share, sizes[kind] - given[kind], left)
            given[kind] += more
            left -= more
    return given


def _known(
    settings: Settings, history: History, samples: int, seed: int, unserved: Collection[date]
) -> KnownEntities:
    if history.rows <= MOST_LOCAL_EVENTS:
        return read_entities(settings, history, unserved)
    from resources.spark.session import connect, engine_errors

    with engine_errors(f"entities of view {history.view.name}"):
        return candidates_on_spark(
            connect(settings), settings, history, unserved, samples=samples, seed=seed
        )


def _strata(known: KnownEntities, days: Sequence[int]) -> "dict[Kind, npt.NDArray[np.int64]]":
    """Return the places of the rows of each kind; ``days`` are those with events, ascending."""
    import numpy as np

    last = known.rows.column(LAST_DAY).to_numpy()
    events = known.rows.column(EVENTS).to_numpy()
    old_before, recent_from = (days[len(days) // 2], days[-RECENT_DAYS:][0]) if days else (0, 0)
    rule: dict[Kind, npt.NDArray[np.bool_]] = {
        "unserved": known.rows.column(IS_UNSERVED).to_numpy(),
        "long_ago": last < min(old_before, recent_from),
        "recent": last >= recent_from,
        "heavy": events * known.count >= HEAVY * known.events,
        "rare": events == 1,
        "older": np.ones(len(last), dtype=bool),
    }
    is_free = np.ones(len(last), dtype=bool)
    strata = {}
    for kind, holds in rule.items():
        strata[kind] = np.flatnonzero(holds & is_free)
        is_free &= ~holds
    return strata


def _drawn(
    known: KnownEntities,
    kind: Kind,
    places: "npt.NDArray[np.int64]",
    count: int,
    draw: random.Random,
) -> list[int]:
    """Return so many of these places."""
    import numpy as np

    newest: list[int] = []
    if kind == "recent":
        arrived = known.rows.column(NEWEST_MS).to_numpy()[places]
        ordered = places[np.argsort(-arrived, kind="stable")]
        newest, places = ordered[: (count + 1) // 2].tolist(), ordered[(count + 1) // 2 :]
    last = known.rows.column(LAST_DAY).to_numpy()[places]
    in_time = places[np.argsort(last, kind="stable")]
    rest = count - len(newest)
    slices = [len(in_time) * i // rest for i in range(rest)] if rest else []
    ends = [*slices[1:], len(in_time)]
    return newest + [
        int(in_time[draw.randrange(a, b)]) for a, b in zip(slices, ends, strict=rest > 0)
    ]


def _keys(view: ViewPlan, rows: "pa.Table") -> list[Key]:
    columns = [key_values(rows.column(e.join_key), e.type) for e in view.entities]
    return list(zip(*columns, strict=True))


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
    for _ in range(_TRIES * count):  # a narrow type may have no further value
        if len(found) == count:
            break
        key = tuple(_unlikely(entity.type, draw) for entity in view.entities)
        if key not in known:
            found[key] = None
    return list(found)


def unlikely_key(view: ViewPlan, seed: int) -> Key:
    """Return a key that most likely nobody ever had; the same one for the same seed."""
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    return tuple(_unlikely(entity.type, draw) for entity in view.entities)


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
