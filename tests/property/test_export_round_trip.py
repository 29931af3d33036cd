"""Exports: reading one back gives equal specs, whatever they hold."""

from collections.abc import Mapping
from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from millrace.aggregates import check_forms
from millrace.export import to_python, to_yaml
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.spec import (
    BatchSource,
    Check,
    Column,
    DerivedFeature,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Schedule,
    Session,
    Source,
    Specs,
    StreamSource,
    Tumbling,
    WindowSpec,
)

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True) | st.sampled_from(
    ["no", "on", "null", "class", "count", "y", "import", "sum", "e1"]
)
# Texts that YAML or Python would read as something else if they were written carelessly.
TRAPS = st.sampled_from(
    [
        "no", "null", "~", "1e3", "0x1f", "2018-04-01", "12:30", "- a", "{b}", "a: b", "#c", "'", '"',
        "\\", "\n", " lead", "trail ", "\t", "é—", "\u2028", "\x00", "\x85", "%d", "{window}", "*", "&a",
        "a\nb\n", "|", ">", "@", "`", "!tag", "?", "=", "<<", "",
    ]
)  # fmt: skip
TEXTS = TRAPS | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DURATIONS = st.sampled_from(["1h", "7d", "90s", "500ms"])
MAYBE_DURATION = st.none() | DURATIONS
PLAIN = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXTS
)
SIMPLE_NAMES = st.from_regex(r"f_[a-z0-9_]{0,8}", fullmatch=True)


WINDOWS_OF: Mapping[type, st.SearchStrategy[WindowSpec]] = {
    str: DURATIONS | st.just("lifetime"),
    Session: st.builds(Session, TEXTS, TEXTS),
    Tumbling: st.builds(Tumbling, TEXTS, st.none() | TEXTS, st.integers(0, 9)),
}
check_forms("the strategies of exports", get_args(WindowSpec), WINDOWS_OF)
WINDOWS = st.one_of(*WINDOWS_OF.values())


@st.composite
def features(draw: st.DrawFn) -> Feature:
    column = draw(st.none() | NAMES)
    aggregate = draw(st.sampled_from(["count", "sum", "avg", "last", "last_k", "percentile"]))
    parameters: dict[str, float] = {}
    if aggregate == "last_k":
        parameters = {"k": draw(st.integers(1, 99))}
    elif aggregate == "percentile":
        parameters = {"p": draw(st.floats(0, 1))}
    return Feature(
        name=draw(SIMPLE_NAMES),
        aggregate=aggregate,
        window=draw(WINDOWS),
        column=column,
        expr=None if column else draw(st.none() | TEXTS),
        hop=draw(MAYBE_DURATION),
        offset=draw(MAYBE_DURATION),
        parameters=parameters,
        default=draw(PLAIN),
        description=draw(TEXTS),
    )


DERIVED = st.builds(DerivedFeature, SIMPLE_NAMES, TEXTS, PLAIN, TEXTS)
CHECKS = st.builds(
    Check,
    NAMES,
    st.dictionaries(SIMPLE_NAMES | st.sampled_from(["max", "class", "a-b"]), PLAIN, max_size=3),
)
COLUMN_TYPES = st.sampled_from(["int64", "decimal(12,2)"])
COLUMNS = st.builds(Column, COLUMN_TYPES, st.none() | TEXTS, TEXTS)
SOURCES = st.builds(
    Source,
    name=NAMES,
    columns=st.dictionaries(NAMES, COLUMN_TYPES | COLUMNS, min_size=1),
    event_time=NAMES,
    event_id=st.none() | NAMES,
    ingest_time=st.none() | NAMES,
    allowed_lateness=DURATIONS,
    clock_skew=DURATIONS,
    dedup_horizon=DURATIONS,
    batch=st.none() | st.builds(BatchSource, NAMES, TEXTS),
    stream=st.none() | st.builds(StreamSource, NAMES, NAMES),
    schedule=st.none() | st.builds(Schedule, NAMES, st.none() | TEXTS, st.none() | TEXTS),
    end=st.none() | st.dates().map(str),
    empty_days=st.lists(TEXTS | st.dates().map(str), max_size=3).map(tuple),
    late_after=MAYBE_DURATION,
    description=TEXTS,
)
VIEWS = st.builds(
    FeatureView,
    name=NAMES,
    entities=st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    source=NAMES,
    start=st.dates().map(str),
    features=st.lists(features() | DERIVED, min_size=1, max_size=4).map(tuple),
    filter=st.none() | TEXTS,
    ttl=MAYBE_DURATION,
    freshness=MAYBE_DURATION,
    owner=st.none() | TEXTS,
    tags=st.dictionaries(TEXTS, TEXTS, max_size=3),
    checks=st.lists(CHECKS, max_size=2).map(tuple),
    description=TEXTS,
)
SERVICES = st.builds(FeatureService, NAMES, st.lists(TEXTS, min_size=1).map(tuple), TEXTS)
SPECS = st.builds(
    Specs,
    st.lists(SOURCES, max_size=2).map(tuple),
    st.lists(st.builds(Entity, NAMES, NAMES, NAMES, TEXTS), max_size=2).map(tuple),
    st.lists(VIEWS, max_size=2).map(tuple),
    st.lists(SERVICES, max_size=1).map(tuple),
)


@given(SPECS)
@example(Specs())
def test_yaml_is_read_back_as_it_was(specs: Specs) -> None:
    text = to_yaml(specs)
    assert read_yaml(text, "export.yaml") == (specs, []), text
    assert _column_order(read_yaml(text, "export.yaml")[0]) == _column_order(specs)


@given(SPECS)
@example(Specs())
def test_python_is_read_back_as_it_was(specs: Specs) -> None:
    text = to_python(specs)
    assert read_python(text, "export.py") == (specs, []), text
    assert _column_order(read_python(text, "export.py")[0]) == _column_order(specs)


def _column_order(specs: Specs) -> list[list[str]]:
    return [list(source.columns) for source in specs.sources]
