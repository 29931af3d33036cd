"""What the server is told: a published plan, from which it serves without feature code."""

from collections.abc import Mapping
from typing import Any

from millrace.codec import FORMAT, Codec, Kind
from millrace.errors import StoreError
from millrace.expressions.documents import to_document
from millrace.layouts import Slot
from millrace.plan import DerivedPlan, FeaturePlan, ViewPlan
from millrace.tiles import LAST_EVENT, feature_columns, tile_columns
from millrace.types import BOOL, TIMESTAMP, parse_type
from millrace.values.plain import to_plain

DOCUMENT = "millrace/serving/v1"
"""Name and version of the document; a reader refuses another."""

NEWEST_IN_WINDOW = "@ts"
"""Suffix of the hidden row slot that holds the newest event in a window that ends
before the query; any other feature's is the row's own newest event, if that lies in its window."""

OVER_LIMIT = "@over"
"""Suffix of the hidden row slot of a feature that has no value of too much: whether there is."""

MERGED_AT = "@as_of"
"""The hidden last slot of a row: the instant it was merged for. It tells nothing of earlier ones,
which a server whose clock is behind the merging one's might ask for."""


def serving_plan(view: ViewPlan) -> dict[str, Any]:
    """Return the serving plan of a view: a JSON document, the same for the same plan.

    It says how the entity's key is made, what tiles and rows hold (slots, in packing order), and of
    which slots, over which window, each feature is merged. Durations are milliseconds; a null
    ``length_ms`` is a lifetime, a null ``reach_ms`` says that tiles are kept for ever. ``empty`` is
    the value of a window without events, of one whose value is null, and of an entity never seen.
    Derived features are calculated when an answer is given: ``derived`` has them, each behind its
    inputs, and ``order`` the names of all as declared; both are there only where there are any.
    """
    return {
        "document": DOCUMENT,
        "view": view.name,
        "fingerprint": view.fingerprint,
        "codec": FORMAT,
        "start_ms": view.start_ms,
        "tile_hop_ms": view.tile_hop_ms,
        "reach_ms": view.reach_ms,
        "ttl_ms": view.ttl_ms,
        "freshness_ms": view.freshness_ms,
        "join_keys": [
            {"entity": e.name, "name": e.join_key, "type": str(e.type)} for e in view.entities
        ],
        "slots": {"tile": _tile_slots(view), "row": _row_slots(view)},
        "features": [_feature(feature) for feature in view.features],
        **({"derived": list(map(_derived, view.derived))} if view.derived else {}),
        **({"order": list(view.order)} if view.derived else {}),
    }


def codec_of(document: Mapping[str, Any], kind: Kind) -> Codec:
    """Return the codec of a published plan's rows or tiles.

    Raises:
        StoreError: the document, or the codec it was written for, is of another version.
    """
    found = (document.get("document"), document.get("codec"))
    if found != (DOCUMENT, FORMAT):
        raise StoreError(
            f"the serving plan is a {found[0]!r} with codec {found[1]!r}",
            where=f"serving plan of {document.get('view')}",
            fix=f"this build reads {DOCUMENT!r} with codec {FORMAT}; publish the view again",
        )
    slots = [
        Slot(
            slot["name"],
            parse_type(slot["type"]),
            is_edge=slot["is_edge"],
            id_type=None if slot["id_type"] is None else parse_type(slot["id_type"]),
        )
        for slot in document["slots"][kind]
    ]
    return Codec(kind, document["fingerprint"], slots)


def _tile_slots(view: ViewPlan) -> list[dict[str, Any]]:
    source = view.source
    id_type = None if source.event_id is None else str(source.column(source.event_id).type)
    return [
        {
            "name": column.name,
            "type": str(column.type),
            "is_edge": column.partial.holds_edge,
            "id_type": id_type if column.partial.holds_edge else None,
        }
        for column in tile_columns(view)
        if column.name != LAST_EVENT  # it stands in the header of every packed value
    ]


def _row_slots(view: ViewPlan) -> list[dict[str, Any]]:
    moved = [f.name + NEWEST_IN_WINDOW for f in view.features if not f.window.ends_at_query]
    slots = [(f.name, str(f.type)) for f in view.features]
    slots += [(name, str(TIMESTAMP)) for name in moved]
    slots += [(f.name + OVER_LIMIT, str(BOOL)) for f in view.features if f.aggregate.entry.is_over]
    slots.append((MERGED_AT, str(TIMESTAMP)))
    return [
        {"name": name, "type": type_, "is_edge": False, "id_type": None} for name, type_ in slots
    ]


def _feature(feature: FeaturePlan) -> dict[str, Any]:
    aggregate = feature.aggregate
    return {
        "name": feature.name,
        "type": str(feature.type),
        "aggregate": aggregate.name,
        **({"parameters": dict(aggregate.parameters)} if aggregate.parameters else {}),
        "input_type": None if aggregate.input is None else str(aggregate.input),
        "window": feature.window.document(),
        "merged_from": list(feature_columns(feature)),
        "empty": to_plain(feature.empty),
    }


def _derived(feature: DerivedPlan) -> dict[str, Any]:
    return {
        "name": feature.name,
        "type": str(feature.type),
        "derive": feature.expression.text,
        "expression": to_document(feature.expression),
        "default": to_plain(feature.default),
    }
