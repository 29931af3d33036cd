"""Names for meanings: equal fingerprints, equal values.

A fingerprint covers what can change a value and nothing else. It leaves out descriptions, owners,
tags, ttl, freshness and checks (they say how a value is presented and watched), schedules (when
it is built), file positions, paths and topics (where events lie, not which they are), and columns
that the view does not read.
Expressions enter by their canonical text, so spacing and comments do not count.

Source: SQLMesh keeps a data hash apart from a metadata hash for the same reason.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from millrace.plan import Column, DerivedPlan, FeaturePlan, SourcePlan, ViewPlan

CONTRACT = 1
"""Raised when the window contract itself changes, so that every view becomes a new version."""


def with_source_fingerprint(source: SourcePlan) -> SourcePlan:
    """Return a source with its fingerprint: the name of its table of events, 16 hex digits."""
    columns = sorted(map(_column, source.columns))
    meaning = {"contract": CONTRACT, "columns": columns, **_event_rules(source)}
    return replace(source, fingerprint=_digest(meaning))


def with_view_fingerprint(view: ViewPlan) -> ViewPlan:
    """Return a view with its fingerprint, 16 hex digits."""
    meaning = {
        "contract": CONTRACT,
        "view": view.name,
        "start": view.start.isoformat(),
        "keys": [[e.name, e.join_key, str(e.type)] for e in view.entities],
        "source": _event_rules(view.source),
        "columns": _columns_read(view),
        "filter": None if view.filter is None else view.filter.text,
        "features": [_feature(feature) for feature in view.features],
        # A view without derived features means what it meant before there were any.
        **({"derived": list(map(_derived, view.derived))} if view.derived else {}),
        **({"order": list(view.order)} if view.derived else {}),
    }
    return replace(view, fingerprint=_digest(meaning))


def _event_rules(source: SourcePlan) -> Mapping[str, Any]:
    return {
        "name": source.name,
        "event_time": source.event_time,
        "event_id": source.event_id,
        "ingest_time": source.ingest_time,
        "allowed_lateness_ms": source.allowed_lateness_ms,
        "clock_skew_ms": source.clock_skew_ms,
        "dedup_horizon_ms": source.dedup_horizon_ms,
    }


def _columns_read(view: ViewPlan) -> list[list[str]]:
    source = view.source
    roles = (source.event_time, source.event_id, source.ingest_time)
    names = {name for name in roles if name is not None}
    for expression in (view.filter, *(m.expression for m in view.measures)):
        if expression is not None:
            names.update(expression.columns)
    return [_column(source.column(name)) for name in sorted(names)]


def _column(column: Column) -> list[str]:
    # What a column is read from is part of what its values are. One that is called in its files
    # what it is called here enters as it did before columns could be renamed.
    plain = [column.name, str(column.type)]
    return plain if column.renamed_from is None else [*plain, column.renamed_from]


def _feature(feature: FeaturePlan) -> Mapping[str, Any]:
    return {
        "name": feature.name,
        "aggregate": feature.aggregate.name,
        "input": None if feature.measure is None else feature.measure.expression.text,
        "type": str(feature.type),
        **feature.window.document(),
        # A feature without these means what it meant before there were any.
        **(
            {"parameters": dict(feature.aggregate.parameters)}
            if feature.aggregate.parameters
            else {}
        ),
        **({} if feature.default is None else {"default": str(feature.default)}),
    }


def _derived(feature: DerivedPlan) -> Mapping[str, Any]:
    return {
        "name": feature.name,
        "derive": feature.expression.text,
        "type": str(feature.type),
        **({} if feature.default is None else {"default": str(feature.default)}),
    }


def _digest(meaning: Mapping[str, Any]) -> str:
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
