"""Derived features over random expressions: the kernel and served answers say what the oracle says."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import assume, given
from hypothesis import strategies as st

from millrace.aggregates import Place
from millrace.codec import Packed, tile_field
from millrace.errors import SpecError
from millrace.expressions import names_in
from millrace.kernel.arrow import KernelView, arrow_type, join_features
from millrace.online.view import OnlineView
from millrace.plan import ViewPlan
from millrace.resolve import resolve
from millrace.spec import (
    BatchSource,
    DerivedFeature,
    Entity,
    Feature,
    FeatureView,
    Session,
    Source,
    Specs,
    Tumbling,
)
from millrace.tiles import TileEvent, build_tile, tile_start_ms
from millrace.types import DataType
from tests import reference
from tests.support.expression_cases import COLUMNS, Writer, random_row
from tests.support.online_cases import document_of, expected_ts
from tests.support.oracle import oracle_derived, oracle_feature

SOURCE = Source(
    "events",
    {
        "at": "timestamp",
        "k": "string",
        "id": "int64",
        **{f"c_{n}": str(t) for n, t in COLUMNS.items()},
    },
    event_time="at",
    event_id="id",
    batch=BatchSource("parquet", "events"),
)
WINDOWS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"window": "10s", "hop": "1s"},
        {"window": "1m", "hop": "1s", "offset": "20s"},
        {"window": "lifetime"},
        {"window": Tumbling("1h", "Europe/London")},
        {"window": Tumbling("1d", "UTC", previous=1)},
        {"window": Session("5s", "1m")},
    ]
)
SEEDS = st.integers(0, 2**48)
HORIZON_MS = 90_000


class Deriving(Writer):
    """Writes expressions in which an instant may be that of the query."""

    def _leaf(self, kind: str) -> str:
        is_instant = kind == "timestamp" and self._rng.random() < 0.5
        return "AS_OF()" if is_instant else super()._leaf(kind)


@dataclass(frozen=True)
class Case:
    """Events of one entity as rows by column, and what is asked of them."""

    view: ViewPlan
    rows: Sequence[Mapping[str, Any]]
    times: Sequence[int]
    q_ms: int

    def events(self, column: str | None) -> list[reference.Event]:
        return [
            reference.Event("k", at, at, None if column is None else row[column], i)
            for i, (at, row) in enumerate(zip(self.times, self.rows, strict=True))
        ]

    def wanted(self, q_ms: int) -> dict[str, object]:
        aggregates = {
            f.name: reference.value(self.events(measured(f.measure)), oracle_feature(f), "k", q_ms)
            for f in self.view.features
        }
        return reference.derive(aggregates, self.derived, q_ms)

    def wanted_ts(self, q_ms: int) -> dict[str, int | None]:
        found = {
            f.name: expected_ts(f, self.view, self.events(None), q_ms) for f in self.view.features
        }
        return reference.newest(found, self.derived)

    @property
    def derived(self) -> dict[str, reference.Derived]:
        # As declared, which is not the order of evaluation.
        by_name = {d.name: oracle_derived(d) for d in self.view.derived}
        return {f.name: by_name[f.name] for f in self.view.outputs if f.name in by_name}


def measured(measure: Any) -> str | None:
    return None if measure is None else measure.expression.columns[0].removeprefix("c_")


@st.composite
def views(draw: st.DrawFn) -> ViewPlan:
    """Up to four features derived of each other and of newest values of any type, and one of ages."""
    rng = random.Random(draw(SEEDS))
    features: list[Feature | DerivedFeature] = [
        DerivedFeature("h", "rows + 1000 * age", default=-1)
    ]
    kind = None
    for i in range(draw(st.integers(1, 4))):
        if kind is not None and rng.random() < 0.5:
            text = f"COALESCE(g{i - 1}, {Deriving(rng, smooth=True).of(kind, 1)})"
        else:
            kind = rng.choice(["int", "double", "decimal", "bool", "string", "date", "timestamp"])
            text = Deriving(rng, smooth=True).of(kind, rng.randint(0, 3))
        features.append(DerivedFeature(f"g{i}", text))
    read = {n for f in features if isinstance(f, DerivedFeature) for n in names_in(f.derive)}
    features += [
        Feature(name, "last", column=f"c_{name}", **draw(WINDOWS))
        for name in COLUMNS
        if name in read
    ]
    features += [Feature("rows", "count", "1m"), Feature("age", "time_since_last", "lifetime")]
    rng.shuffle(features)
    view = FeatureView("derived", ("thing",), "events", "1970-01-01", tuple(features))
    try:
        return resolve(Specs((SOURCE,), (Entity("thing", "k", "string"),), (view,))).view("derived")
    except SpecError as refused:
        # The writer knows no precisions and no ranges of literals; all else it writes is right.
        assume(all("digits" not in f.what and "beyond int64" not in f.what for f in refused.faults))
        raise


@st.composite
def cases(draw: st.DrawFn) -> Case:
    view, rng = draw(views()), random.Random(draw(SEEDS))
    times = draw(st.lists(st.integers(0, HORIZON_MS), max_size=6))
    rows = [random_row(rng) for _ in times]
    newest = max(times, default=0)
    return Case(view, rows, times, newest + 1 + draw(st.integers(0, HORIZON_MS)))


def same(got: object, want: object) -> bool:
    """Text tells 1 from 1.0 and 1.00 from 1.0; the sign of zero is free."""
    return _shown(got) == _shown(want)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return str(value + 0.0)
    return str(value)


def cells(values: Sequence[Any], kind: DataType) -> pa.Array:
    if kind.kind == "timestamp":
        values = [None if v is None else v * 1000 for v in values]
    return pa.array(values, arrow_type(kind))


@given(case=cases())
def test_the_kernel_derives_what_the_reference_derives(case: Case) -> None:
    view = case.view
    events = {
        "k": pa.array(["k"] * len(case.times), pa.string()),
        "_event_ms": pa.array(case.times, pa.int64()),
        "_ingest_ms": pa.array(case.times, pa.int64()),
        "_event_id": pa.array(range(len(case.times)), pa.int64()),
    }
    for measure in view.measures:
        column = measured(measure)
        assert column is not None
        events[measure.name] = cells([row[column] for row in case.rows], measure.type)
    instants = [case.q_ms, case.q_ms + 1, case.q_ms + HORIZON_MS]
    spine = {"k": pa.array(["k"] * 3), "_query_ms": pa.array(instants, pa.int64())}
    found = join_features(KernelView.of(view), pa.table(events), pa.table(spine))
    assert found.column_names == [f.name for f in view.outputs]
    assert [c.type for c in found.columns] == [arrow_type(f.type) for f in view.outputs]
    for place, q_ms in enumerate(instants):
        want = case.wanted(q_ms)
        for feature in view.derived:
            value = found.column(feature.name)[place]
            if feature.type.kind == "timestamp":
                got = None if value.as_py() is None else value.value // 1000
            else:
                got = value.as_py()
            assert same(got, want[feature.name]), (feature.expression.text, got, want)


@given(case=cases(), later=st.integers(0, HORIZON_MS), chosen=SEEDS)
def test_an_answer_derives_what_the_reference_derives(case: Case, later: int, chosen: int) -> None:
    view = case.view
    online = OnlineView.from_plan(document_of(view))
    assert [(f.name, f.type) for f in online.features] == [(f.name, f.type) for f in view.outputs]
    row = online.rows.decode(online.rows.encode(online.merge(tiles_of(case), case.q_ms)))
    at = case.q_ms + later
    if not online.holds(row, at):
        row = online.merge(tiles_of(case), at)
    answers = online.answer(row, at, at)
    want, want_ts = case.wanted(at), case.wanted_ts(at)
    for feature, (value, ts_ms, status) in zip(view.outputs, answers, strict=True):
        assert same(value, want[feature.name]), (feature, value, want)
        assert ts_ms == want_ts[feature.name]
        assert status == ("NULL_VALUE" if want[feature.name] is None else "PRESENT")
    # Whatever is asked for, in whatever order, is answered as if all were.
    places = random.Random(chosen).sample(range(len(answers)), len(answers) // 2)
    assert online.answer(row, at, at, places) == [answers[i] for i in places]


@given(view=views(), at=st.integers(0, HORIZON_MS))
def test_of_an_unknown_entity_is_derived_what_is_derived_of_nothing(
    view: ViewPlan, at: int
) -> None:
    online = OnlineView.from_plan(document_of(view))
    want = Case(view, [], [], at).wanted(at)
    for feature, (value, ts_ms, status) in zip(view.outputs, online.absent(at), strict=True):
        assert same(value, want[feature.name])
        assert (ts_ms, status) == (None, "NOT_FOUND")


def tiles_of(case: Case) -> dict[bytes, bytes]:
    view, online = case.view, OnlineView.from_plan(document_of(case.view))
    held: dict[int, list[TileEvent]] = {}
    for i, (at, row) in enumerate(zip(case.times, case.rows, strict=True)):
        values = {m.name: row[str(measured(m))] for m in view.measures}
        start_ms = tile_start_ms(at, view.tile_hop_ms)
        held.setdefault(start_ms, []).append(TileEvent(Place(at, at, i), values))
    packed = {}
    for start_ms, inside in held.items():
        tile = build_tile(view, inside)
        slots = tuple(tile[slot.name] for slot in online.tiles.slots)
        packed[tile_field(start_ms)] = online.tiles.encode(Packed(slots, tile["last_event_ms"]))
    return packed
