"""A day's profile is right, adds up from parts, and comes back from its table as it went in."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millrace.errors import DataError, SetupError
from millrace.plan import Column
from millrace.quality import sketches
from millrace.quality.partial import Partials, TableShape
from millrace.quality.profile import ROW_TYPES, ColumnProfile, DayProfile
from millrace.quality.sketches import Identities, hash_bytes, hash_numbers, tails_of
from millrace.types import BOOL, BYTES, FLOAT64, INT64, STRING, TIMESTAMP, decimal

DAY = date(2024, 3, 5)
NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)
COLUMNS = {
    "id": INT64,
    "at": TIMESTAMP,
    "amount": decimal(12, 2),
    "weight": FLOAT64,
    "channel": STRING,
    "is_big": BOOL,
    "raw": BYTES,
}
SHAPE = TableShape(
    "events/payments", tuple(Column(n, t) for n, t in COLUMNS.items()), "at", ("id",)
)


def table(rows: int, *, first: int = 0, **changed: list[Any]) -> pa.Table:
    """Return rows one minute apart from noon on: ids, amounts 0.25, 0.50, …, two channels."""
    numbers = range(first, first + rows)
    columns: dict[str, Any] = {
        "id": list(numbers),
        "at": [NOON + timedelta(minutes=i) for i in numbers],
        "amount": [Decimal(i + 1) / 4 for i in numbers],
        "weight": [float(i) for i in numbers],
        "channel": ["web" if i % 3 else "shop" for i in numbers],
        "is_big": [i % 2 == 0 for i in numbers],
        "raw": [bytes([i % 7]) for i in numbers],
    }
    columns.update(changed)
    types = [
        pa.int64(), pa.timestamp("us", "UTC"), pa.decimal128(12, 2), pa.float64(), pa.string(),
        pa.bool_(), pa.binary(),
    ]  # fmt: skip
    return pa.table({n: pa.array(v, t) for (n, v), t in zip(columns.items(), types, strict=True)})


def profiles_of(*tables: pa.Table) -> list[DayProfile]:
    partials = Partials(SHAPE)
    for one in tables:
        partials.add(one)
    return partials.profiles()


def test_counts_moments_and_values_of_each_kind() -> None:
    (day,) = profiles_of(table(9))
    assert (day.day, day.rows, day.duplicates) == (DAY, 9, 0)
    assert day.hours[12] == 9
    assert day.last_ms == int((NOON + timedelta(minutes=8)).timestamp() * 1000)
    amount, channel, big = (day.columns[n] for n in ("amount", "channel", "is_big"))
    assert (amount.kind, amount.nulls, amount.minimum, amount.maximum) == ("number", 0, 0.25, 2.25)
    assert amount.mean == pytest.approx(1.25)
    assert amount.variance == pytest.approx(np.var([(i + 1) / 4 for i in range(9)]))
    assert amount.smallest == tuple((i + 1) / 4 for i in range(9))
    assert amount.quantiles([0.0, 1.0]) == (0.25, 2.25)
    assert channel.top == (("web", 6), ("shop", 3))
    assert channel.top_is_complete
    assert channel.mean == pytest.approx((6 * 3 + 3 * 4) / 9)  # lengths
    assert big.top == (("true", 5), ("false", 4))
    assert day.columns["id"].top_share == pytest.approx(1 / 9)
    assert round(day.columns["raw"].distinct) == 7
    assert day.columns["at"].kll is None


def test_non_finite_doubles_are_nulls_and_null_columns_have_no_moments() -> None:
    weights = [1.0, float("nan"), float("inf"), None]
    (day,) = profiles_of(table(4, weight=weights, channel=[None] * 4))
    weight, channel = day.columns["weight"], day.columns["channel"]
    assert (weight.rows, weight.nulls, weight.maximum) == (4, 3, 1.0)
    assert (channel.nulls, channel.mean, channel.kll, channel.top) == (4, None, None, ())
    assert channel.null_rate == 1.0


def test_parts_made_apart_add_up_to_the_whole() -> None:
    whole = profiles_of(table(900), table(500, first=900))
    here, there = Partials(SHAPE), Partials(SHAPE)
    here.add(table(500, first=900))
    for batch in table(900).to_batches(max_chunksize=70):
        there.add(batch)
    here.merge_bytes(there.to_bytes())
    for one, other in zip(whole, here.profiles(), strict=True):
        assert (one.rows, one.hours, one.duplicates) == (other.rows, other.hours, other.duplicates)
        assert (one.first_ms, one.last_ms) == (other.first_ms, other.last_ms)
        for name, column in one.columns.items():
            merged = other.columns[name]
            for field in ("rows", "nulls", "distinct", "minimum", "maximum", "smallest", "top"):
                assert getattr(column, field) == getattr(merged, field), (name, field)
            assert column.m2 == (None if merged.m2 is None else pytest.approx(merged.m2))


def test_rows_belong_to_the_utc_day_of_their_event_time() -> None:
    times = [
        datetime(2024, 3, 5, 23, 59, 59, 999_999, UTC), datetime(2024, 3, 6, tzinfo=UTC), None,
        datetime(1969, 12, 31, 23, tzinfo=UTC),
    ]  # fmt: skip
    days = profiles_of(table(4, at=times))
    assert [(d.day, d.rows, d.hours.index(1)) for d in days] == [
        (date(1969, 12, 31), 1, 23),
        (date(2024, 3, 5), 1, 23),
        (date(2024, 3, 6), 1, 0),
    ]


def test_a_day_that_was_asked_for_and_has_no_rows_is_there() -> None:
    partials = Partials(SHAPE)
    partials.add(table(3))
    empty = DAY + timedelta(1)
    days = partials.profiles([empty], {empty: {"dead_letters": 4}})
    assert [(d.day, d.rows, dict(d.counts)) for d in days] == [
        (DAY, 3, {}),
        (empty, 0, {"dead_letters": 4}),
    ]


def test_a_profile_comes_back_from_its_rows_in_any_order() -> None:
    (day,) = profiles_of(table(40, weight=[None] * 40))
    rows = day.as_rows()
    assert all(set(row) == set(ROW_TYPES) for row in rows)
    assert [row["column"] for row in rows] == [None, *COLUMNS]
    assert DayProfile.from_rows(day.table, rows[::-1]) == day


def test_rows_without_the_tables_own_are_refused() -> None:
    (day,) = profiles_of(table(3))
    with pytest.raises(DataError) as caught:
        DayProfile.from_rows(day.table, day.as_rows()[1:])
    assert caught.value.where == "profiles/events/payments"


def test_duplicates_are_rows_that_repeat_the_identity() -> None:
    assert profiles_of(table(30), table(10))[0].duplicates == 10
    whole_row = TableShape(SHAPE.table, SHAPE.columns, "at", tuple(COLUMNS))
    partials = Partials(whole_row)
    partials.add(table(30))
    partials.add(table(10))
    partials.add(table(10, channel=["x"] * 10))
    assert partials.profiles()[0].duplicates == 10


def test_many_identities_are_sampled_and_the_estimate_stays_close() -> None:
    identities = Identities()
    ids = np.arange(400_000, dtype=np.float64)
    identities.add(hash_numbers(ids))
    identities.add(hash_numbers(ids[:40_000]))
    assert identities.level == 2
    assert len(identities.hashes) <= sketches.MOST_IDENTITIES
    assert identities.duplicates == pytest.approx(40_000, rel=0.05)


@pytest.mark.parametrize("many", [1, 100, 3_000, 100_000])
def test_different_values_are_estimated_within_five_percent(many: int) -> None:
    hashes = hash_numbers(np.arange(many, dtype=np.float64) / 7)
    estimate = sketches.hll_estimate(sketches.hll_registers(hashes))
    assert estimate == pytest.approx(many, rel=0.05)


def test_texts_hash_alike_wherever_they_lie() -> None:
    texts = ["", "a", "b", "ab", "ba", "a\0", "abc" * 40]
    joined = np.frombuffer("".join(texts * 2).encode(), np.uint8)
    offsets = np.cumsum([0, *(len(t) for t in texts * 2)])
    hashes = hash_bytes(joined, offsets)
    assert len(set(hashes.tolist())) == len(texts)
    assert (hashes[: len(texts)] == hashes[len(texts) :]).all()
    (alone,) = hash_bytes(np.frombuffer(b"ab", np.uint8), np.array([0, 2]))
    assert alone == hashes[texts.index("ab")]


@pytest.mark.parametrize("rows", [0, 3, 64, 65, 1_024, 5_000])
def test_the_extremes_are_those_of_sorting(rows: int) -> None:
    values = np.random.default_rng(rows).integers(-50, 50, rows).astype(np.float64)
    smallest, largest = tails_of(values, 64)
    assert smallest.tolist() == np.sort(values)[:64].tolist()
    assert largest.tolist() == np.sort(values)[-64:].tolist()


def test_without_the_extra_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasketches", None)
    with pytest.raises(SetupError) as caught:
        sketches.new_kll()
    assert "millrace[quality]" in caught.value.fix


def test_a_column_without_values_has_no_share_and_no_quantiles() -> None:
    column = ColumnProfile("x", "number", 5, 5)
    assert (column.null_rate, column.variance, column.quantiles([0.5])) == (1.0, None, ())


def test_a_process_that_asked_sketches_ends_in_silence() -> None:
    # As in a step's process, a thread that never ends holds what it was given.
    code = (
        "import threading\n"
        "from millrace.quality import sketches\n"
        "sketches.kept_kll(sketches.new_kll().serialize())\n"
        "wait = lambda held: threading.Event().wait()\n"
        "threading.Thread(target=wait, args=(sketches.kept_kll,), daemon=True).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
