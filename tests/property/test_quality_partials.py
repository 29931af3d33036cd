"""However rows are cut into batches and parts, the profile is that of all rows at once."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from millrace.plan import Column
from millrace.quality.partial import Partials, TableShape
from millrace.quality.profile import DayProfile
from millrace.types import BOOL, FLOAT64, INT64, STRING, TIMESTAMP

START = datetime(2024, 2, 28, 20, tzinfo=UTC)
TYPES = {
    "at": (TIMESTAMP, pa.timestamp("ms", "UTC")),
    "number": (FLOAT64, pa.float64()),
    "count": (INT64, pa.int64()),
    "text": (STRING, pa.string()),
    "flag": (BOOL, pa.bool_()),
}
SHAPE = TableShape("t", tuple(Column(n, t) for n, (t, _) in TYPES.items()), "at", tuple(TYPES))
ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(0, 3_000).map(lambda m: START + timedelta(minutes=m)),
        st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")),
        st.none() | st.integers(-3, 3),
        st.none() | st.sampled_from(["", "a", "b", "é", "a long one " * 9]),
        st.none() | st.booleans(),
    ),
    max_size=60,
)


def table(rows: list[tuple[object, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in TYPES]
    return pa.table(
        {n: pa.array(list(v), t) for (n, (_, t)), v in zip(TYPES.items(), columns, strict=True)}
    )


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=4), flips=st.integers(0, 15))
def test_parts_add_up_in_any_order(
    rows: list[tuple[object, ...]], cuts: list[int], flips: int
) -> None:
    whole = Partials(SHAPE)
    whole.add(table(rows))
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    parts = [rows[a:b] for a, b in pairwise(edges)]
    made = [Partials(SHAPE), Partials(SHAPE)]
    for number, part in enumerate(parts):
        made[(flips >> number) & 1].add(table(part))
    made[0].merge_bytes(made[1].to_bytes())
    for one, other in zip(whole.profiles(), made[0].profiles(), strict=True):
        same(one, other)
        same(DayProfile.from_rows("t", one.as_rows()), one)


def same(one: DayProfile, other: DayProfile) -> None:
    for field in ("day", "rows", "duplicates", "hours", "first_ms", "last_ms"):
        assert getattr(one, field) == getattr(other, field)
    for name, a in one.columns.items():
        b = other.columns[name]
        for field in (
            "rows",
            "nulls",
            "distinct",
            "minimum",
            "maximum",
            "smallest",
            "largest",
            "top",
        ):
            assert getattr(a, field) == getattr(b, field), (name, field)
        assert a.top_is_complete == b.top_is_complete
        for field in ("mean", "m2"):
            x, y = getattr(a, field), getattr(b, field)
            assert (x is None) == (y is None)
            # Millions of milliseconds squared: what is left of a double's digits.
            assert x is None or np.isclose(
                x, y, rtol=1e-6, atol=1e-3 + 1e-9 * abs(a.mean or 0) ** 2
            )


@given(rows=ROWS)
def test_counts_are_those_of_the_rows(rows: list[tuple[object, ...]]) -> None:
    partials = Partials(SHAPE)
    partials.add(table(rows))
    by_day: dict[date, list[tuple[object, ...]]] = {}
    for row in rows:
        if isinstance(row[0], datetime):
            by_day.setdefault(row[0].date(), []).append(row)
    found = {p.day: p for p in partials.profiles()}
    assert set(found) == set(by_day)
    for day, expected in by_day.items():
        profile = found[day]
        assert profile.rows == sum(profile.hours) == len(expected)
        texts = [r[3] for r in expected if r[3] is not None]
        assert profile.columns["text"].nulls == len(expected) - len(texts)
        assert dict(profile.columns["text"].top) == {t: texts.count(t) for t in texts}
