"""Inputs at the edge of what the kernel is given."""

import pickle
from decimal import Decimal

import pyarrow as pa
import pytest

from millrace.errors import DataError
from millrace.kernel.arrow import join_features
from millrace.types import INT64, STRING, decimal, parse_type
from tests import reference
from tests.support.kernel_cases import (
    EVERY,
    Query,
    accepting,
    bound,
    events_table,
    feature,
    kernel_values,
    kernel_view,
)

ALL = [feature(a, 2000, 1000) for a in EVERY]
NOTHING: list[object] = [bound(a, INT64).empty for a in EVERY]


def spine_of(keys: list[str | None], instants_ms: list[int]) -> pa.Table:
    return pa.table(
        {"k0": pa.array(keys, pa.string()), "_query_ms": pa.array(instants_ms, pa.int64())}
    )


def test_no_events_give_counts_of_zero_and_nulls() -> None:
    assert kernel_values([], ALL, [Query("a", 5), Query(None, 5)]) == [NOTHING, NOTHING]


@pytest.mark.parametrize("type_", ["int64", "float64", "string", "bytes", "decimal(38,10)", "date"])
def test_events_of_which_every_value_is_null_are_as_none(type_: str) -> None:
    taken = [a for a in accepting(EVERY, type_) if not a.endswith("_rows")]
    features = [feature(a, 2000, 1000, type_=type_) for a in taken]
    nothing = [bound(a, parse_type(type_)).empty for a in taken]
    events = [reference.Event("a", 1, 1, None), reference.Event("a", 2, 900, None)]
    assert kernel_values(events, features, [Query("a", 5), Query("a", 950)]) == [nothing] * 2


def test_no_queries_give_no_rows() -> None:
    assert kernel_values([reference.Event("a", 1, 1, 1)], ALL, []) == []


def test_tables_without_any_chunk_are_empty_tables() -> None:
    view = kernel_view(ALL, has_event_id=True, key_types=[STRING])
    events = events_table([], INT64, has_event_id=True, key_types=[STRING])
    out = join_features(view, events.schema.empty_table(), spine_of([], []).schema.empty_table())
    assert (out.num_rows, out.column_names) == (0, [f.name for f in view.features])


def test_unknown_keys_null_keys_and_queries_before_the_first_event_see_nothing() -> None:
    events = [reference.Event("a", 1000, 1000, 7), reference.Event(None, 1000, 1000, 8)]
    queries = [Query("a", 1000), Query("b", 1001), Query(None, 1001), Query("a", -5000)]
    assert kernel_values(events, ALL, queries) == [NOTHING] * 4


def test_repeated_spine_rows_get_the_same_answer_each_in_its_place() -> None:
    events = [reference.Event("a", 1000, 1000, 7), reference.Event("b", 1000, 1000, 8)]
    queries = [Query(key, 1001) for key in ("a", "b", "a", "b", "b")]
    rows = kernel_values(events, [reference.Feature("sum", 2000, 1000)], queries)
    assert rows == [[7], [8], [7], [8], [8]]


def test_instants_millions_of_years_apart_do_not_collide() -> None:
    far = 2**60
    at = [-far, -5, 0, 5, far]
    events = [reference.Event(key, t, t, i) for key in "abc" for i, t in enumerate(at)]
    features = [reference.Feature(a, n, 1000) for a in ("sum", "last") for n in (1000, None)]
    queries = [Query(key, t + d) for key in "abc" for t in at for d in (0, 1)]
    queries += [Query("a", 2**63 - 1), Query("b", -(2**63))]
    wanted = [[reference.value(events, f, q.key, q.q_ms) for f in features] for q in queries]
    assert kernel_values(events, features, queries) == wanted


def test_a_null_event_id_comes_before_every_other() -> None:
    events = [
        reference.Event("a", 1, 1, 1, "x"),
        reference.Event("a", 1, 1, 5, None),
        reference.Event("a", 1, 1, 3, "y"),
        reference.Event("a", 1, 1, 0, "x"),
    ]
    features = [reference.Feature(a, 1000, 1000) for a in ("first", "last")]
    assert kernel_values(events, features, [Query("a", 2)]) == [[5, 3]]


def test_slices_and_several_chunks_of_a_table_are_read_at_their_place() -> None:
    measure = decimal(30, 2)
    values = [Decimal(i).scaleb(-2) if i % 3 else None for i in range(20)]
    events = [reference.Event("a", i, i, v) for i, v in enumerate(values)]
    features = [
        reference.Feature(a, None, 1000, type=str(measure)) for a in ("sum", "min", "last", "count")
    ]
    view = kernel_view(features, has_event_id=False, key_types=[STRING])
    table = events_table(events, measure, has_event_id=False, key_types=[STRING])
    pieces = pa.concat_tables([table.slice(5, 4), table.slice(11, 6)])
    some = events[5:9] + events[11:17]
    for given, kept in ((table.slice(7, 9), events[7:16]), (pieces, some)):
        got = join_features(view, given, spine_of(["a"], [100])).to_pylist()[0]
        assert list(got.values()) == [reference.value(kept, f, "a", 100) for f in features]


def test_a_missing_column_is_named_with_the_nearest_there_is() -> None:
    view = kernel_view(ALL, has_event_id=True, key_types=[STRING])
    events = events_table([], INT64, has_event_id=True, key_types=[STRING])
    spine = spine_of([], []).rename_columns(["k0", "query_ms"])
    with pytest.raises(DataError) as caught:
        join_features(view, events, spine)
    assert str(caught.value) == "spine: no column '_query_ms'\n  fix: did you mean 'query_ms'?"


def test_a_view_of_the_kernel_pickles() -> None:
    view = kernel_view(ALL, has_event_id=True, key_types=[STRING, INT64])
    assert pickle.loads(pickle.dumps(view)) == view  # noqa: S301
