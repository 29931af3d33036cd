"""Twelve kinds of damage done to a day, in the ways data really break."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.checks.days import Dataset

Random = np.random.Generator

FEWEST_WEEKS = 4
FEWEST_ROWS = 20
"""An hour counts as usual if it had rows on so many same weekdays, and so many at the median."""


@dataclass(frozen=True)
class Damage:
    """One way to damage a day.

    Attributes:
        kind: one of the twelve kinds.
        how: what exactly is done, for the report.
        apply: takes the dataset, the day and a generator; None if the day cannot be damaged so.
    """

    kind: str
    how: str
    apply: Callable[[Dataset, date, Random], pa.Table | None]


def column_damage(
    kind: str, how: str, column: str, change: Callable[[pa.ChunkedArray, Random], pa.Array]
) -> Damage:
    """Return a damage of the values of one column."""

    def apply(dataset: Dataset, day: date, random: Random) -> pa.Table:
        table = dataset.days[day]
        return _put(table, column, change(table[column], random))

    return Damage(kind, f"{column}: {how}", apply)


def nulls(column: str, share: float) -> Damage:
    """Some values are gone."""

    def change(values: pa.ChunkedArray, random: Random) -> pa.Array:
        gone = pa.array(random.random(len(values)) < share)
        return pc.if_else(gone, pa.scalar(None, values.type), values)

    return column_damage("nulls", f"{share:.0%} null", column, change)


def times(kind: str, column: str, factor: float) -> Damage:
    """All values are multiplied."""

    def change(values: pa.ChunkedArray, _: Random) -> pa.Array:
        return pc.multiply(values.cast(pa.float64()), factor)

    return column_damage(kind, f"times {factor:g}", column, change)


def burst(column: str, factor: float, share: float) -> Damage:
    """A few values are far too large."""

    def change(values: pa.ChunkedArray, random: Random) -> pa.Array:
        numbers = values.cast(pa.float64())
        hit = pa.array(random.random(len(values)) < share)
        return pc.if_else(hit, pc.multiply(numbers, factor), numbers)

    return column_damage("outlier burst", f"{share:.0%} times {factor:g}", column, change)


def next_category(column: str) -> Damage:
    """Every value becomes the next one, as when the codes of a list move by one."""

    def apply(dataset: Dataset, day: date, _: Random) -> pa.Table:
        # The list is that of all days: the codes move, the values stay known ones.
        seen = pa.chunked_array([c for t in dataset.days.values() for c in t[column].chunks])
        known = pc.unique(seen).drop_null().sort()
        values = dataset.days[day][column]
        places = pc.index_in(values, known)
        moved = pc.if_else(pc.equal(places, len(known) - 1), 0, pc.add(places, 1))
        return _put(dataset.days[day], column, known.take(moved.combine_chunks()))

    return Damage("shifted category", f"{column}: each value the next", apply)


def negated(column: str) -> Damage:
    """A flag means its opposite."""

    def change(values: pa.ChunkedArray, _: Random) -> pa.Array:
        return pc.invert(values.cast(pa.bool_()))

    return column_damage("shifted category", "negated", column, change)


def doubled() -> Damage:
    """Every row stands twice."""

    def apply(dataset: Dataset, day: date, _: Random) -> pa.Table:
        table = dataset.days[day]
        return pa.concat_tables([table, table])

    return Damage("duplicated day", "every row twice", apply)


def repeated(id_column: str | None) -> Damage:
    """The day before is delivered again as this day, under new ids."""

    def apply(dataset: Dataset, day: date, _: Random) -> pa.Table | None:
        before = dataset.days.get(day - timedelta(1))
        if before is None:
            return None
        table = _moved(before, dataset.event_time, timedelta(days=1))
        if id_column is None:
            return table
        return _put(table, id_column, pc.add(table[id_column], 10_000_000))

    return Damage("duplicated day", "yesterday again, a day later, under new ids", apply)


def missing_hour() -> Damage:
    """One hour that usually has rows has none."""

    def apply(dataset: Dataset, day: date, random: Random) -> pa.Table | None:
        table = dataset.days[day]
        hours = pc.hour(table[dataset.event_time]).to_numpy()
        full = [h for h in range(24) if _is_usual(dataset, day, h) and (hours == h).any()]
        if not full:
            return None
        return table.filter(pa.array(hours != random.choice(full)))

    return Damage("missing hour", "one hour of at least 20 usual rows", apply)


def frozen(column: str, from_share: float) -> Damage:
    """From some row on a value never changes again."""

    def change(values: pa.ChunkedArray, _: Random) -> pa.Array:
        start = int(len(values) * from_share)
        stuck = pa.array(np.arange(len(values)) >= start)
        return pc.if_else(stuck, values[start], values)

    how = "constant" if not from_share else f"constant after {from_share:.0%} of rows"
    return column_damage("frozen sensor", how, column, change)


def zone_shift(hours: int) -> Damage:
    """Local times are taken for UTC, on every day around."""

    def apply(dataset: Dataset, day: date, _: Random) -> pa.Table | None:
        around = [dataset.days.get(day + timedelta(n)) for n in (-1, 0, 1)]
        table = pa.concat_tables([t for t in around if t is not None])
        moved = _moved(table, dataset.event_time, timedelta(hours=hours))
        days = pc.cast(moved[dataset.event_time], pa.date32())
        return moved.filter(pc.equal(days, pa.scalar(day, pa.date32())))

    return Damage("time-zone shift", f"{hours:+d} h", apply)


def truncated(kept: float) -> Damage:
    """The file ends early; it is in order of time."""

    def apply(dataset: Dataset, day: date, _: Random) -> pa.Table:
        table = dataset.days[day]
        return table.slice(0, int(table.num_rows * kept))

    return Damage("truncated file", f"the first {kept:.0%}", apply)


def swapped(left: str, right: str) -> Damage:
    """Two columns change places."""

    def apply(dataset: Dataset, day: date, _: Random) -> pa.Table:
        table = dataset.days[day]
        one, other = table[left], table[right]
        return _put(_put(table, left, other), right, one)

    return Damage("swapped columns", f"{left} and {right}", apply)


def new_value(column: str, value: object, share: float) -> Damage:
    """Some rows have a value that never was."""

    def change(values: pa.ChunkedArray, random: Random) -> pa.Array:
        hit = pa.array(random.random(len(values)) < share)
        return pc.if_else(hit, pa.scalar(value, values.type), values)

    return column_damage("new enum value", f"{share:.0%} {value!r}", column, change)


DAMAGES: Mapping[str, tuple[Damage, ...]] = {
    "card_transactions": (
        nulls("amount", 0.2),
        nulls("customer_id", 0.05),
        times("scale change", "amount", 100),
        times("unit change", "amount", 1.17),
        negated("is_fraud"),
        doubled(),
        repeated("transaction_id"),
        missing_hour(),
        frozen("amount", 0.0),
        frozen("amount", 0.5),
        frozen("is_fraud", 0.0),
        zone_shift(5),
        zone_shift(1),
        truncated(0.6),
        truncated(0.9),
        swapped("customer_id", "terminal_id"),
        swapped("amount", "customer_id"),
        new_value("terminal_id", 1_000_007, 0.03),
        burst("amount", 1000, 0.01),
        burst("amount", 10, 0.01),
    ),
    "online_retail": (
        nulls("country", 0.2),
        nulls("unit_price", 0.05),
        nulls("customer_id", 1.0),
        times("scale change", "unit_price", 100),
        times("unit change", "unit_price", 1.55),
        times("unit change", "quantity", 12),
        next_category("country"),
        doubled(),
        repeated(None),
        missing_hour(),
        frozen("quantity", 0.0),
        frozen("unit_price", 0.5),
        zone_shift(5),
        zone_shift(1),
        truncated(0.6),
        truncated(0.9),
        swapped("quantity", "unit_price"),
        swapped("stock_code", "description"),
        new_value("country", "Atlantis", 0.03),
        burst("quantity", 1000, 0.01),
        burst("unit_price", 1000, 0.01),
    ),
    "flights": (
        nulls("dep_delay_min", 0.2),
        nulls("tailnum", 0.05),
        times("scale change", "distance_miles", 100),
        times("unit change", "distance_miles", 1.609),
        times("unit change", "air_time_min", 1 / 60),
        next_category("carrier"),
        next_category("origin"),
        doubled(),
        repeated("flight_id"),
        missing_hour(),
        frozen("dep_delay_min", 0.0),
        frozen("distance_miles", 0.5),
        frozen("carrier", 0.0),
        zone_shift(5),
        zone_shift(1),
        truncated(0.6),
        truncated(0.9),
        swapped("distance_miles", "air_time_min"),
        swapped("origin", "dest"),
        swapped("dep_delay_min", "arr_delay_min"),
        new_value("carrier", "ZZ", 0.03),
        burst("dep_delay_min", 1000, 0.01),
        burst("air_time_min", 10, 0.01),
    ),
}
"""By source."""

KINDS = (
    "nulls", "scale change", "unit change", "shifted category", "duplicated day", "missing hour",
    "frozen sensor", "time-zone shift", "truncated file", "swapped columns", "new enum value",
    "outlier burst",
)  # fmt: skip


def _put(table: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def _moved(table: pa.Table, column: str, by: timedelta) -> pa.Table:
    kind = table[column].type
    return _put(table, column, pc.add(table[column], pa.scalar(by, pa.duration(kind.unit))))


def _is_usual(dataset: Dataset, day: date, hour: int) -> bool:
    weeks = [dataset.days.get(day - timedelta(weeks=n)) for n in range(1, 9)]
    counts = [
        int((pc.hour(t[dataset.event_time]).to_numpy() == hour).sum())
        for t in weeks
        if t is not None
    ]
    is_known = len(counts) >= FEWEST_WEEKS and min(counts) > 0
    return is_known and float(np.median(counts)) >= FEWEST_ROWS
