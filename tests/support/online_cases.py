"""Views, events and packed tiles for tests of the online half, beside what the reference says."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

from millrace.aggregates import Place
from millrace.codec import Packed, tile_field
from millrace.compile.serving import serving_plan
from millrace.expressions import column_expression
from millrace.online.view import OnlineView
from millrace.plan import (
    Column,
    EntityPlan,
    FeaturePlan,
    Measure,
    StreamPlan,
    ViewPlan,
)
from millrace.tiles import TileEvent, build_tile, tile_start_ms
from millrace.types import INT64, STRING, DataType
from millrace.window import Window
from tests import reference
from tests.support.oracle import bound_to, oracle_feature
from tests.support.source_plans import source_plan
from tests.support.window_cases import reference_fields

SOURCE = source_plan(
    (Column("id", INT64), Column("at", INT64)),
    name="events",
    event_id="id",
    allowed_lateness_ms=0,
    clock_skew_ms=0,
    stream=StreamPlan("events", "json"),
    fingerprint="0" * 16,
)


def feature_of(
    name: str,
    aggregate: str,
    window: Window,
    type_: DataType | None = None,
    default: Any = None,
) -> FeaturePlan:
    """A feature of the column ``v_<type>``; without a type it counts rows."""
    measure = None if type_ is None else Measure(f"m_{type_.kind}", _column(type_))
    return FeaturePlan(name, bound_to(aggregate, type_), measure, window, default=default)


def _column(type_: DataType) -> Any:
    return column_expression(f"v_{type_.kind}", type_)


def view_of(
    features: Sequence[FeaturePlan],
    *,
    name: str = "view",
    entities: tuple[EntityPlan, ...] = (EntityPlan("thing", "k", STRING),),
    start: date = date(1960, 1, 1),
    ttl_ms: int | None = None,
    freshness_ms: int | None = None,
    fingerprint: str = "00ff00ff00ff00ff",
) -> ViewPlan:
    return ViewPlan(
        name=name,
        entities=entities,
        source=SOURCE,
        start=start,
        filter=None,
        measures=tuple(dict.fromkeys(f.measure for f in features if f.measure is not None)),
        features=tuple(features),
        ttl_ms=ttl_ms,
        freshness_ms=freshness_ms,
        owner=None,
        tags={},
        checks=(),
        description="",
        fingerprint=fingerprint,
    )


def document_of(view: ViewPlan) -> dict[str, Any]:
    """The serving plan as it comes out of the store."""
    document: dict[str, Any] = json.loads(json.dumps(serving_plan(view)))
    return document


def packed_tiles(
    view: ViewPlan, events: Iterable[reference.Event], *, coarse_for_ms: int | None = None
) -> dict[bytes, bytes]:
    """An entity's tiles as stored; those that no query from ``coarse_for_ms`` on tells apart are
    one."""
    online, hop_ms = OnlineView.from_plan(document_of(view)), view.tile_hop_ms
    held: dict[int, list[TileEvent]] = {}
    for event in events:
        assert event.event_ms is not None
        if event.event_ms >= view.start_ms:
            place = Place(event.event_ms, event.ingest_ms, event.event_id)
            values = {m.name: event.value for m in view.measures}
            start_ms = tile_start_ms(event.event_ms, hop_ms)
            held.setdefault(start_ms, []).append(TileEvent(place, values))
    if coarse_for_ms is not None:
        held = _coarse(view, held, coarse_for_ms)
    packed = {}
    for start_ms, inside in held.items():
        tile = build_tile(view, inside)
        values_ = tuple(tile[slot.name] for slot in online.tiles.slots)
        packed[tile_field(start_ms)] = online.tiles.encode(Packed(values_, tile["last_event_ms"]))
    return packed


def _coarse(
    view: ViewPlan, held: dict[int, list[TileEvent]], from_ms: int
) -> dict[int, list[TileEvent]]:
    merged: dict[int, list[TileEvent]] = {}
    latest: int | None = None
    for start_ms in sorted(held):
        if latest is None or _can_part(view, latest, start_ms, from_ms):
            latest = start_ms
        merged.setdefault(latest, []).extend(held[start_ms])
    return merged


def _can_part(view: ViewPlan, left_ms: int, right_ms: int, from_ms: int) -> bool:
    """Some window, now or later, begins or ends between the starts of two tiles."""
    starts = np.array([left_ms, right_ms])
    parts = (feature.window.parts(starts, from_ms) for feature in view.features)
    return any(begins[0] != begins[1] for begins, _ in parts)


def expected(feature: FeaturePlan, view: ViewPlan, events: list[reference.Event], q_ms: int) -> Any:
    """The value by the reference."""
    asked = oracle_feature(feature)
    return reference.value(events, asked, "k", q_ms, hindsight=True, start_ms=view.start_ms)


def expected_status(
    feature: FeaturePlan, view: ViewPlan, events: list[reference.Event], q_ms: int
) -> str:
    """The status by the reference, of an entity that is known and a value that is not stale."""
    asked = oracle_feature(feature)
    if feature.aggregate.entry.is_over is not None:
        counted = replace(asked, aggregate="distinct", parameters=(("limit", 10**9),), default=None)
        different = reference.value(
            events, counted, "k", q_ms, hindsight=True, start_ms=view.start_ms
        )
        assert isinstance(different, int)
        if different > dict(asked.parameters)["limit"]:
            return "OVER_LIMIT"
    return "NULL_VALUE" if expected(feature, view, events, q_ms) is None else "PRESENT"


def expected_ts(
    feature: FeaturePlan, view: ViewPlan, events: list[reference.Event], q_ms: int
) -> int | None:
    """The newest event in the window by the reference."""
    asked = reference.Feature("count_rows", **reference_fields(feature.window))
    tail_ms, end_ms = reference.bounds(asked, q_ms)
    inside = [
        e
        for e in events
        if e.event_ms is not None
        and (tail_ms is None or e.event_ms >= tail_ms)
        and view.start_ms <= e.event_ms < end_ms
    ]
    counted = reference.of_session(inside, asked, q_ms)
    return max((e.event_ms for e in counted if e.event_ms is not None), default=None)


def size_of(values: Iterable[object]) -> float:
    """The largest magnitude, to which the error of a spread is relative."""
    sizes = [abs(float(v)) for v in values if isinstance(v, (int, float, Decimal))]
    return max(sizes, default=0.0)
