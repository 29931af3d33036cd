"""Vectors: what they are wherever values are read, stored, told and judged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from checks.parity.audit import is_same
from millrace.codec import Codec, Packed
from millrace.compile.checks import check_rules, source_rules
from millrace.errors import DataError, SpecError, StoreError
from millrace.export import to_python, to_yaml
from millrace.kernel.arrow import arrow_type, join_features
from millrace.kernel.view import KernelView
from millrace.layouts import Slot
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.plan import Column, Plan
from millrace.quality.partial import Partials, TableShape
from millrace.resolve import resolve
from millrace.rows.csv_rows import cell_converter
from millrace.rows.typed_rows import fitted
from millrace.types import INT64, TIMESTAMP, list_of, parse_type, vector
from millrace.values.scalars import Misfit
from offline.raw.files import can_convert
from offline.raw.parquet import portable_types, read_footer, rows_of
from offline.raw.splits import Split
from offline.training.dataset_file import write_table_file
from serving import rendering
from tests.support.source_plans import source_plan

TENTH = float(np.float32(0.1))
LARGEST = float(np.finfo(np.float32).max)

FILE = """\
version: millrace/v1
sources:
  - name: posts
    columns: {id: int64, at: timestamp, who: int64, taste: vector(3)}
    event_time: at
    event_id: id
    batch: {format: parquet, path: posts}
    stream: {topic: posts, format: json}
entities:
  - {name: reader, join_key: who, type: int64}
feature_views:
  - name: tastes
    entity: reader
    source: posts
    start: 2024-03-01
    features:
      - {name: last_taste, aggregate: last, column: taste, window: 1d}
"""


def planned(text: str) -> Plan:
    specs, faults = read_yaml(text, "posts.yaml")
    assert not faults
    return resolve(specs)


def refused(text: str) -> list[tuple[str, str]]:
    specs, faults = read_yaml(text, "posts.yaml")
    try:
        resolve(specs)
    except SpecError as error:
        faults += error.faults
    return [(fault.what, fault.fix) for fault in faults]


def changed(old: str, new: str) -> str:
    assert FILE.count(old) == 1
    return FILE.replace(old, new)


def test_a_vector_is_written_and_read_as_it_is_named() -> None:
    assert parse_type("vector(8)") == parse_type("vector( 8 )") == vector(8)
    assert str(vector(8)) == "vector(8)"
    assert (vector(8).spark, vector(8).flink) == ("ARRAY<FLOAT>", "ARRAY<FLOAT>")
    assert arrow_type(vector(8)) == pa.list_(pa.float32())
    assert not vector(8).is_numeric


@pytest.mark.parametrize("text", ["vector", "vector()", "vector(x)", "vector(0)", "vector(4097)"])
def test_only_lengths_within_bounds_are_types(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a type|1 to 4096"):
        parse_type(text)
    with pytest.raises(ValueError, match="are scalars"):
        list_of(vector(3))


@pytest.mark.parametrize(
    ("old", "new", "what", "fix"),
    [
        (
            "vector(3)",
            "vector(9999)",
            "column 'taste': vector(9999): a length goes from 1 to 4096",
            "vector(8), for one",
        ),
        (
            "aggregate: last",
            "aggregate: max",
            "feature 'last_taste': max of a vector(3) has no meaning",
            "vector(3) works with count, avg, first, last",
        ),
        (
            "column: taste",
            'expr: "COALESCE(taste, taste)"',
            "feature 'last_taste': 'taste' is a vector(3), and expressions have no functions of it",
            "aggregate it as it is, column: taste",
        ),
        (
            "    start: 2024-03-01\n",
            '    start: 2024-03-01\n    filter: "taste IS NOT NULL"\n',
            "filter: 'taste' is a vector(3), and expressions have no functions of it",
            "aggregate it as it is, column: taste",
        ),
        (
            "column: taste",
            'expr: "CAST(NULL AS vector(3))"',
            "feature 'last_taste': nothing can be cast to a vector(3)",
            "int32",
        ),
        (
            "window: 1d}",
            "window: 1d}\n      - {name: share, derive: last_taste}",
            "feature 'share': 'last_taste' is a vector(3), and expressions have no vectors",
            "derive of features of one value",
        ),
        (
            "window: 1d}",
            "window: 1d, default: 0}",
            "feature 'last_taste': default is 0, and vector values cannot be written out",
            "leave it out; last gives a vector(3) here",
        ),
        (
            "type: int64}",
            "type: vector(3)}",
            "entity 'reader' has a key of type vector(3)",
            "keys are int32, int64 or string",
        ),
        (
            "event_time: at",
            "event_time: taste",
            "event_time is a column of type vector(3)",
            "it must be timestamp",
        ),
        (
            "window: 1d}",
            "window: 1d}\n    checks:\n      - {type: drift, feature: last_taste, max: 1}",
            "the check 'drift' cannot judge 'last_taste', a vector(3)",
            "it judges",
        ),
        (
            "window: 1d}",
            """window: 1d}
    checks:
      - {type: expectation, feature: last_taste, mode: rows, expect: expect_column_values_to_be_unique}""",
            "expect_column_values_to_be_unique cannot judge a vector(3)",
            "expect_column_values_to_not_be_null",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_with_a_way_out(
    old: str, new: str, what: str, fix: str
) -> None:
    found = refused(changed(old, new))
    assert any(what in said and fix in mend for said, mend in found), found


def test_an_expression_of_a_vector_alone_is_the_column() -> None:
    plain, written = planned(FILE), planned(changed("column: taste", "expr: (taste)"))
    assert plain.view("tastes").fingerprint == written.view("tastes").fingerprint


def test_yaml_and_python_say_the_type_alike() -> None:
    specs, _ = read_yaml(FILE, "posts.yaml")
    again, faults = read_python(to_python(specs), "written.py")
    assert not faults
    wanted = planned(FILE).view("tastes").fingerprint
    assert resolve(again).view("tastes").fingerprint == wanted
    assert planned(to_yaml(specs)).view("tastes").fingerprint == wanted


def test_only_its_nulls_are_judged() -> None:
    plan = planned(FILE)
    view = plan.view("tastes")
    of_column = [r.type for r in source_rules(view.source, [view]) if r.feature == "taste"]
    assert of_column == ["null_rate"]
    assert [r.type for r in check_rules(view) if r.feature == "last_taste"] == ["null_rate"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0.1,-0,1e-50]", [TENTH, 0.0, 0.0]),
        (" [ 1 ,\t2,3 ] ", [1.0, 2.0, 3.0]),
        ("[16777217,3.4028235e38,-1]", [16777216.0, LARGEST, -1.0]),
        ("  ", None),
    ],
)
def test_a_cell_of_csv_is_a_json_array(text: str, value: list[float] | None) -> None:
    assert cell_converter(vector(3))(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "[1,2]",
        "[1,2,3,4]",
        "[]",
        "[",
        "]",
        "1,2,3",
        "[1,2,NaN]",
        "[1,2,null]",
        "[1,2,]",
        "[1,2,1e39]",
    ],
)
def test_a_cell_that_is_none_is_a_misfit(text: str) -> None:
    with pytest.raises(Misfit):
        cell_converter(vector(3))(text)


def test_a_vector_of_another_length_says_so() -> None:
    with pytest.raises(Misfit, match=r"2 numbers are no vector\(3\)"):
        cell_converter(vector(3))("[1,2]")


LISTS: dict[str, Callable[[list[Any]], pa.Array]] = {
    "lists of floats": lambda rows: pa.array(rows, pa.list_(pa.float32())),
    "lists of doubles": lambda rows: pa.array(rows, pa.list_(pa.float64())),
    "large lists": lambda rows: pa.array(rows, pa.large_list(pa.float64())),
}


@pytest.mark.parametrize("made", LISTS.values(), ids=list(LISTS))
def test_typed_lists_become_vectors_or_misfits(made: Callable[[list[Any]], pa.Array]) -> None:
    rows: list[Any] = [
        [9.0], [0.1, 1, -0.0], None, [1, 2], [1, None, 2], [1, float("nan"), 2], [], [1, 2, float("inf")],
        [LARGEST, 1, 2],
    ]  # fmt: skip
    values, bad = fitted(made(rows)[1:], vector(3))
    values.validate(full=True)
    assert values.type == arrow_type(vector(3))
    good = [[TENTH, 1.0, 0.0], None, None, None, None, None, None, [LARGEST, 1.0, 2.0]]
    assert values.to_pylist() == good
    assert bad.tolist() == [False, False, True, True, True, True, True, False]


def test_lists_of_integers_and_of_one_size_become_vectors() -> None:
    whole, _ = fitted(pa.array([[1, 2**60]], pa.list_(pa.int64())), vector(2))
    sized, _ = fitted(pa.array([[1, 2], None], pa.list_(pa.float32(), 2)), vector(2))
    assert whole.to_pylist() == [[1.0, 2.0**60]]
    assert sized.to_pylist() == [[1.0, 2.0], None]
    _, too_long = fitted(pa.array([[1, 2]], pa.list_(pa.float32(), 2)), vector(3))
    assert too_long.tolist() == [True]


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        (pa.list_(pa.float32()), True),
        (pa.list_(pa.field("element", pa.float64(), nullable=False)), True),
        (pa.list_(pa.float32(), 8), True),
        (pa.large_list(pa.int16()), True),
        (pa.null(), True),
        (pa.list_(pa.decimal128(5, 2)), False),
        (pa.list_(pa.string()), False),
        (pa.list_(pa.list_(pa.float32())), False),
        (pa.string(), False),
        (pa.float32(), False),
    ],
)
def test_the_footer_tells_which_files_can_hold_vectors(found: pa.DataType, *, fits: bool) -> None:
    assert can_convert(str(found), "vector") == fits


@pytest.mark.parametrize("type_", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2)])
def test_parquet_is_read_beside_what_is_nested(type_: pa.DataType, tmp_path: Path) -> None:
    path = str(tmp_path / "posts.parquet")
    inner = pa.struct([("v", type_), ("n", pa.int64())])
    table = pa.table(
        {
            "skipped": pa.array([[[1]], None], pa.list_(pa.list_(pa.int64()))),
            "deep": pa.array([{"v": [0.1, 2], "n": 1}, None], inner),
            "v": pa.array([[1, 2], None], type_),
            "at": pa.array([0, 1], pa.timestamp("us")),
        }
    )
    pq.write_table(table, path)
    source = source_plan(
        (
            Column("at", TIMESTAMP),
            Column("v", vector(2)),
            Column("inside", vector(2), "deep.v"),
            Column("n", INT64, "deep.n"),
        )
    )
    columns = read_footer(path, "at").columns
    (batch,) = rows_of(portable_types(source, columns), Split(path, 0, 1, 0))
    assert batch.column("v").to_pylist() == [[1.0, 2.0], None]
    inside, _ = fitted(batch.column("inside"), vector(2))
    assert inside.to_pylist() == [[TENTH, 2.0], None]
    assert batch.column("n").to_pylist() == [1, None]


def test_the_kernel_takes_vectors_out_of_slices_with_nulls() -> None:
    view = planned(FILE).view("tastes")
    start = view.start_ms
    tastes = pa.array([[9, 9, 9], None, [1, 2, 3], [4, 5, 6]], arrow_type(vector(3)))[1:]
    events = pa.table(
        {
            "who": pa.array([1, 1, 2], pa.int64()),
            "_event_ms": [start + 2, start, start + 1],
            "_ingest_ms": [start + 2, start, start + 1],
            "_event_id": pa.array([1, 2, 3], pa.int64()),
            "m0": tastes,
        }
    )
    spine = pa.table({"who": [1, 2, 3], "_query_ms": [start + 10] * 3})
    found = join_features(KernelView.of(view), events, spine)
    assert found["last_taste"].to_pylist() == [[1, 2, 3], [4, 5, 6], None]
    assert found["last_taste"].type == arrow_type(vector(3))


def test_parity_takes_neighbouring_floats_for_one_mean_alone() -> None:
    (last,) = planned(FILE).view("tastes").features
    (mean,) = planned(changed("aggregate: last", "aggregate: avg")).view("tastes").features
    assert mean.type == vector(3)
    near = float(np.nextafter(np.float32(TENTH), np.float32(1)))
    far = float(np.nextafter(np.float32(near), np.float32(1)))
    assert is_same(mean, [TENTH, 0.0, 1.0], [near, 0.0, 1.0])
    assert not is_same(mean, [TENTH, 0.0, 1.0], [far, 0.0, 1.0])
    assert not is_same(mean, [1.0], [1.0, 2.0])
    assert not is_same(last, [TENTH, 0.0, 1.0], [near, 0.0, 1.0])


def test_a_mean_is_that_of_each_element_whatever_the_sizes() -> None:
    view = planned(changed("aggregate: last", "aggregate: avg")).view("tastes")
    vectors = [[3e38, 1, 0.1], [3e38, 2, 0.1], [-3e38, 4, 0.1], None]
    at = [view.start_ms + i for i in range(len(vectors))]
    events = pa.table(
        {
            "who": pa.array([1] * len(at), pa.int64()),
            "_event_ms": at,
            "_ingest_ms": at,
            "_event_id": pa.array(range(len(at)), pa.int64()),
            "m0": pa.array(vectors, arrow_type(vector(3))),
        }
    )
    spine = pa.table({"who": [1, 1, 2], "_query_ms": [at[-1] + 1, at[1], at[1]]})
    found = join_features(KernelView.of(view), events, spine)["last_taste"]
    means = pa.array([[1e38, 7 / 3, 0.1], [3e38, 1, 0.1], None], found.type)
    assert found.type == arrow_type(vector(3))
    assert found.combine_chunks().equals(means)


def test_a_packed_vector_has_its_length_and_fits() -> None:
    codec = Codec("row", "0" * 16, [Slot("f", vector(2))])
    whole = codec.encode(Packed(([0.5, -1],)))
    assert codec.decode(whole) == Packed(([0.5, -1.0],))
    assert len(whole) == 1 + 1 + 8 + 8 + 8 + 1 + 2 * 4
    for wrong in ([1.0], [1.0, None], [1.0, float("nan")], [1.0, 1e39], 1.0, "ab"):
        with pytest.raises(DataError, match=r"does not fit vector\(2\)"):
            codec.encode(Packed((wrong,)))
    for broken in (whole[:-1], whole + b"\0"):
        with pytest.raises(StoreError, match="broken"):
            codec.decode(broken)


def test_answers_are_arrays() -> None:
    assert rendering.writer_of(vector(2)) is None
    assert rendering.ENCODER.encode([TENTH, -1.0]) == b"[0.10000000149011612,-1.0]"


def test_a_csv_has_vectors_with_as_few_digits_as_tell_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rows = [[0.1, -1e30], None, [16777216, 1e-45]]
    write_table_file(pa.table({"v": pa.array(rows, arrow_type(vector(2)))}), path)
    lines = path.read_text().splitlines()[1:]
    assert lines == ['"[0.1, -1e+30]"', "", '"[16777216, 1e-45]"']
    read = [cell_converter(vector(2))(line.strip('"')) for line in lines if line]
    assert pa.array(read, arrow_type(vector(2))).to_pylist() == [
        row for row in pa.array(rows, arrow_type(vector(2))).to_pylist() if row is not None
    ]


def test_rows_that_differ_in_a_vector_alone_are_no_duplicates() -> None:
    columns = (Column("at", TIMESTAMP), Column("v", vector(2)))
    partials = Partials(TableShape("events/s", columns, "at", ("at", "v")))
    vectors = [[1, 2], [2, 1], [1, 2], None]
    at = pa.array([0] * len(vectors), pa.int64()).cast(arrow_type(TIMESTAMP))
    partials.add(pa.table({"at": at, "v": pa.array(vectors, arrow_type(vector(2)))}))
    (day,) = partials.profiles()
    column = day.columns["v"]
    assert (day.duplicates, column.kind, column.nulls, round(column.distinct)) == (1, "other", 1, 2)
