"""The data of the demo: what is backfilled, and the spines that are asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cli.demo.datasets import flights_path
from millrace.days import Days
from resources.settings import CHECKOUT, Settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

EXAMPLES = CHECKOUT / "feature_assets" / "examples"
"""Declarations over the data that ``MILLRACE_DATA`` may hold."""

SEED = 20130101
SPINE_ROWS = 20_000
AWKWARD_ROWS = 8
FAST_DAYS = 60
USUAL_DAYS = 92

REGULAR = "an event's own instant"


@dataclass(frozen=True)
class DemoSet:
    """One source of the demo, with the days to build.

    Attributes:
        views: every view of the source whose values are recomputed.
        raw: the Parquet file that the source reads.
        keys: join keys of the views; columns of the raw file.
        watched: the view that is looked up while events stream: one of a single key, no filter.
        question: body of a lookup to try, JSON.
        stranger: for each key a value that no event has.
        label: column of the raw file that goes into the spine as what a model would learn.
        dirt: description to a condition over the raw file, counted and shown.
    """

    source: str
    title: str
    views: tuple[str, ...]
    days: Days
    raw: Path
    event_time: str
    keys: tuple[str, ...]
    watched: str
    question: str
    stranger: Mapping[str, object]
    label: str
    dirt: Mapping[str, str]


def demo_sets(
    settings: Settings, *, fast: bool = False, every_day: bool = False
) -> tuple[DemoSet, ...]:
    """Return what this machine has data for, the flights first.

    Args:
        settings: name the data.
        fast: only the flights, and their first 60 days.
        every_day: all days of each set; else the first 92, a quarter and a bit.
    """
    flights = _flights(settings)
    if fast:
        return (_first_days(flights, FAST_DAYS),)
    sets = [flights]
    if settings.data is not None and "://" not in settings.data:
        sets += [_cards(Path(settings.data)), _retail(Path(settings.data))]
    found = [one for one in sets if one is flights or one.raw.exists()]
    return tuple(found if every_day else (_first_days(one, USUAL_DAYS) for one in found))


def _first_days(demo_set: DemoSet, count: int) -> DemoSet:
    # From the start on: what windows and lifetimes reach back to is then all there.
    start = demo_set.days.start
    return replace(demo_set, days=Days(start, start + timedelta(days=count)))


def with_examples(settings: Settings, sets: Sequence[DemoSet]) -> Settings:
    """Add the example declarations where some set needs them."""
    if len(sets) == 1 or EXAMPLES in settings.views:
        return settings
    return replace(settings, views=(*settings.views, EXAMPLES))


def _flights(settings: Settings) -> DemoSet:
    return DemoSet(
        source="flights",
        title="departures from New York's airports in 2013",
        views=("airport_departures", "carrier_delay", "aircraft_history"),
        days=Days.parse("2013-01-01", "2014-01-02"),
        raw=flights_path(settings),
        event_time="departed_at",
        keys=("origin", "carrier", "tailnum"),
        watched="aircraft_history",
        question='{"entity_name": "aircraft", "keys": ["N725MQ"], "features": "aircraft_history:*"}',
        stranger={"origin": "XXX", "carrier": "??", "tailnum": "N00000"},
        label="arr_delay_min",
        dirt={
            "cancelled, so without a departure time": "departed_at IS NULL",
            "without a tail number": "tailnum IS NULL",
            "departed, but without an arrival delay": (
                "departed_at IS NOT NULL AND arr_delay_min IS NULL"
            ),
        },
    )


def _cards(data: Path) -> DemoSet:
    return DemoSet(
        source="card_transactions",
        title="card payments of a simulator, half of 2018",
        views=("customer_spend", "terminal_risk"),
        days=Days.parse("2018-04-01", "2018-10-01"),
        raw=data / "card_transactions.parquet",
        event_time="tx_ts",
        keys=("customer_id", "terminal_id"),
        watched="terminal_risk",
        question='{"entity_name": "terminal", "keys": [42], "features": "terminal_risk:*"}',
        stranger={"customer_id": 10**9, "terminal_id": 10**9},
        label="is_fraud",
        dirt={"of an amount that is not positive": "NOT amount > 0", "frauds": "is_fraud = 1"},
    )


def _retail(data: Path) -> DemoSet:
    return DemoSet(
        source="online_retail",
        title="invoice lines of a web shop, December 2010 to December 2011",
        views=("shopper_activity", "item_demand"),
        days=Days.parse("2010-12-01", "2011-12-10"),
        raw=data / "online_retail.parquet",
        event_time="invoice_ts",
        keys=("customer_id", "stock_code"),
        watched="item_demand",
        question='{"entity_name": "item", "keys": ["85123A"], "features": "item_demand:*"}',
        stranger={"customer_id": 10**9, "stock_code": "no such article"},
        label="quantity",
        dirt={
            "without a customer": "customer_id IS NULL",
            "returns (a negative quantity)": "quantity < 0",
            "with a price that is not positive": "NOT unit_price > 0",
        },
    )


def write_spine(demo_set: DemoSet, path: Path) -> int:
    """Write a spine of real instants and awkward ones; return its number of rows.

    Columns: ``row`` (0, 1, …), the join keys, ``event_timestamp``, ``kind`` and the label. The
    same every time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    events = _events_within(demo_set)
    chosen = _chosen(events.num_rows, SPINE_ROWS)
    regular = _spine_rows(demo_set, events.take(pa.array(chosen)), REGULAR)
    few = regular.take(pa.array(_chosen(regular.num_rows, AWKWARD_ROWS)))
    spine = pa.concat_tables([regular, *_awkward(demo_set, few)])
    spine = spine.add_column(0, "row", pa.array(range(spine.num_rows), pa.int64()))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(spine, path)
    return int(spine.num_rows)


def _events_within(demo_set: DemoSet) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = [*demo_set.keys, demo_set.event_time, demo_set.label]
    raw = pq.read_table(demo_set.raw, columns=columns)
    stamps = raw[demo_set.event_time].cast(pa.timestamp("ms")).cast(pa.int64())
    days = demo_set.days
    within = pc.and_(pc.greater_equal(stamps, days.start_ms), pc.less(stamps, days.end_ms))
    raw = raw.set_column(raw.column_names.index(demo_set.event_time), "event_timestamp", stamps)
    return raw.filter(pc.fill_null(within, fill_value=False))


def _chosen(total: int, wanted: int) -> "np.ndarray":
    import numpy as np

    return np.sort(np.random.default_rng(SEED).choice(total, min(total, wanted), replace=False))


def _spine_rows(demo_set: DemoSet, events: "pa.Table", kind: str) -> "pa.Table":
    import pyarrow as pa

    columns = {key: events[key] for key in demo_set.keys}
    columns["event_timestamp"] = events["event_timestamp"].cast(pa.timestamp("ms", "UTC"))
    columns["kind"] = pa.array([kind] * events.num_rows, pa.string())
    columns[demo_set.label] = events[demo_set.label]
    return pa.table(columns)


def _awkward(demo_set: DemoSet, rows: "pa.Table") -> "list[pa.Table]":
    """Turn a few rows into the questions on which engines differ first."""
    hour_ms = 3_600_000
    return [
        _with_keys(rows, demo_set.stranger, "keys that nobody has"),
        _with_keys(rows, dict.fromkeys(demo_set.keys), "null keys"),
        _moved(rows, 1, "a millisecond after an event"),
        _moved(rows, hour_ms, "an event on or near the tail's edge"),
        _at(rows, demo_set.days.start_ms - 1, "before history begins"),
        _at(rows, demo_set.days.end_ms - 1, "the last instant of the range"),
    ]


def _with_keys(rows: "pa.Table", keys: Mapping[str, object], kind: str) -> "pa.Table":
    import pyarrow as pa

    for name, key in keys.items():
        index = rows.column_names.index(name)
        rows = rows.set_column(
            index, name, pa.array([key] * rows.num_rows, rows.schema.field(name).type)
        )
    return _kind(rows, kind)


def _moved(rows: "pa.Table", by_ms: int, kind: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    moved = pc.add(rows["event_timestamp"].cast(pa.int64()), by_ms)
    return _kind(_times(rows, moved), kind)


def _at(rows: "pa.Table", moment_ms: int, kind: str) -> "pa.Table":
    import pyarrow as pa

    return _kind(_times(rows, pa.array([moment_ms] * rows.num_rows, pa.int64())), kind)


def _times(rows: "pa.Table", moments_ms: "pa.Array") -> "pa.Table":
    import pyarrow as pa

    index = rows.column_names.index("event_timestamp")
    return rows.set_column(index, "event_timestamp", moments_ms.cast(pa.timestamp("ms", "UTC")))


def _kind(rows: "pa.Table", kind: str) -> "pa.Table":
    import pyarrow as pa

    index = rows.column_names.index("kind")
    return rows.set_column(index, "kind", pa.array([kind] * rows.num_rows, pa.string()))
