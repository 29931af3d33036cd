"""Fingerprints: what changes one, and what does not."""

from dataclasses import replace
from typing import Any

import pytest

from millrace.plan import ViewPlan
from millrace.resolve import resolve
from millrace.spec import (
    BatchSource,
    Check,
    Column,
    Entity,
    Feature,
    FeatureView,
    Location,
    Schedule,
    Source,
    Specs,
    StreamSource,
)

COLUMNS = {"id": "int64", "ts": "timestamp", "k": "int64", "x": "int64", "y": "int64", "at": "timestamp"}  # fmt: skip
SOURCE = Source("s", COLUMNS, "ts", event_id="id", batch=BatchSource("parquet", "a"))
ENTITY = Entity("e", "k", "int64")
FEATURES = (
    Feature("a", "sum", "1d", column="x"),
    Feature("b", "avg", "1d", expr="x + 1", offset="1d"),
)
VIEW = FeatureView("v", ("e",), "s", "2020-01-01", FEATURES, filter="x > 0")


def planned(view: FeatureView = VIEW, source: Source = SOURCE, entity: Entity = ENTITY) -> ViewPlan:
    """Return the plan of the one view."""
    plan = resolve(Specs((source,), (entity, Entity("z", "x", "int64")), (view,)))
    return next(iter(plan.views.values()))


def feature(**changes: Any) -> FeatureView:
    """Return the view with its first feature changed."""
    return replace(VIEW, features=(replace(FEATURES[0], **changes), FEATURES[1]))


PLAIN = planned()


def test_a_fingerprint_is_16_hex_digits_and_stands_still() -> None:
    # Pinned: a change here makes every deployed view a new version, so raise CONTRACT with a reason.
    assert PLAIN.fingerprint == "d3a665150fae5bef"
    assert PLAIN.source.fingerprint == "16cc93f50917bc3d"


SAME_VIEWS = {
    "description": replace(VIEW, description="Words."),
    "owner": replace(VIEW, owner="me@example.com"),
    "tags": replace(VIEW, tags={"a": "b"}),
    "ttl": replace(VIEW, ttl="1d"),
    "freshness": replace(VIEW, freshness="1m"),
    "checks": replace(VIEW, checks=(Check("null_rate", {"feature": "a", "max": 1}),)),
    "position": replace(VIEW, where=Location("other.yaml", 99)),
    "description of a feature": feature(description="Words."),
    "spacing": replace(VIEW, filter="  x>0  "),
    "a comment": replace(VIEW, filter="x > /* positive */ 0"),
    "letters' case of keywords": feature(column=None, expr="x"),
    "the default hop, named": feature(hop="1h"),
    "another spelling of a duration": feature(window="24h"),
    "no offset, named": feature(offset="0s"),
}

SAME_SOURCES = {
    "description": replace(SOURCE, description="Words."),
    "path": replace(SOURCE, batch=BatchSource("csv", "b")),
    "a schedule": replace(SOURCE, schedule=Schedule("hourly", "06:00", "Europe/Berlin")),
    "an end": replace(SOURCE, end="2024-01-01"),
    "empty days": replace(SOURCE, empty_days=("sunday", "2024-12-25")),
    "when a day is late": replace(SOURCE, late_after="6h"),
    "a stream": replace(SOURCE, stream=StreamSource("t")),
    "spelling of a duration": replace(SOURCE, allowed_lateness="60m"),
    "order of columns": replace(SOURCE, columns=dict(reversed(COLUMNS.items()))),
    "a column written out": replace(
        SOURCE, columns={**COLUMNS, "x": Column("int64", "x", "Words.")}
    ),
}

OTHER_VIEWS = {
    "name": replace(VIEW, name="w"),
    "start": replace(VIEW, start="2020-01-02"),
    "filter": replace(VIEW, filter="x > 1"),
    "no filter": replace(VIEW, filter=None),
    "key": replace(VIEW, entities=("e", "z")),
    "order of features": replace(VIEW, features=FEATURES[::-1]),
    "fewer features": replace(VIEW, features=FEATURES[:1]),
    "name of a feature": feature(name="c"),
    "aggregate": feature(aggregate="max"),
    "input": feature(column="y"),
    "window": feature(window="2d"),
    "lifetime": feature(window="lifetime"),
    "hop": feature(hop="30m"),
    "offset": feature(offset="1d"),
    "a default": feature(default=0),
    "another default": feature(default=1),
}

OTHER_SOURCES = {
    "type of a column": replace(SOURCE, columns={**COLUMNS, "x": "int32"}),
    "what a column is read from": replace(SOURCE, columns={**COLUMNS, "x": Column("int64", "y")}),
    "event time": replace(SOURCE, event_time="at"),
    "event id": replace(SOURCE, event_id="y"),
    "no event id": replace(SOURCE, event_id=None),
    "ingest time": replace(SOURCE, ingest_time="at"),
    "lateness": replace(SOURCE, allowed_lateness="2h"),
    "skew": replace(SOURCE, clock_skew="6s"),
    "horizon": replace(SOURCE, dedup_horizon="2d"),
}


@pytest.mark.parametrize("case", SAME_VIEWS)
def test_what_does_not_change_a_value_does_not_change_the_fingerprint(case: str) -> None:
    assert planned(SAME_VIEWS[case]).fingerprint == PLAIN.fingerprint


@pytest.mark.parametrize("case", SAME_SOURCES)
def test_where_events_lie_does_not_change_a_fingerprint(case: str) -> None:
    changed = planned(source=SAME_SOURCES[case])
    assert changed.fingerprint == PLAIN.fingerprint
    assert changed.source.fingerprint == PLAIN.source.fingerprint


def test_a_column_that_a_view_does_not_read_changes_the_source_alone() -> None:
    changed = planned(source=replace(SOURCE, columns={**COLUMNS, "unused": "string"}))
    assert changed.fingerprint == PLAIN.fingerprint
    assert changed.source.fingerprint != PLAIN.source.fingerprint


@pytest.mark.parametrize("case", OTHER_VIEWS)
def test_every_change_of_meaning_changes_the_fingerprint(case: str) -> None:
    assert planned(OTHER_VIEWS[case]).fingerprint != PLAIN.fingerprint


@pytest.mark.parametrize("case", OTHER_SOURCES)
def test_every_change_of_the_events_rules_changes_both(case: str) -> None:
    view = replace(VIEW, features=FEATURES) if case != "type of a column" else VIEW
    changed = planned(view, OTHER_SOURCES[case])
    assert changed.fingerprint != PLAIN.fingerprint
    assert changed.source.fingerprint != PLAIN.source.fingerprint


def test_the_type_of_a_key_is_part_of_the_meaning() -> None:
    source = replace(SOURCE, columns={**COLUMNS, "k": "string"})
    changed = planned(source=source, entity=replace(ENTITY, type="string"))
    assert changed.fingerprint != PLAIN.fingerprint


def test_all_these_meanings_differ_from_one_another() -> None:
    prints = [planned(v).fingerprint for v in OTHER_VIEWS.values()]
    prints += [planned(source=s).fingerprint for s in OTHER_SOURCES.values()]
    assert len({*prints, PLAIN.fingerprint}) == len(prints) + 1
