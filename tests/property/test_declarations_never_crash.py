"""Whatever stands in a file, reading and resolving it ends in a plan or in faults with lines."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Fault
from millrace.load.yaml import read_yaml
from millrace.resolve import resolve_as_far_as_read
from millrace.spec import Specs

SEED = """\
version: millrace/v1
sources:
  - name: cards
    columns: {id: int64, ts: timestamp, customer_id: {type: int64, from: CustomerID}, terminal_id: string, amount: float64}
    event_time: ts
    event_id: id
    ingest_time: ts
    allowed_lateness: 1h
    batch: {format: parquet, path: cards.parquet}
    stream: {topic: cards, format: json}
    schedule: {refresh: hourly, at: 06:00, timezone: Europe/Berlin}
entities:
  - {name: customer, join_key: customer_id, type: int64}
  - {name: terminal, join_key: terminal_id, type: string}
feature_views:
  - name: spend
    entities: [customer, terminal]
    source: cards
    start: 2018-04-01
    filter: amount > 0
    ttl: 30d
    tags: {pii: no}
    features:
      - {name: "tx_{window}", aggregate: count, windows: [1h, 1d]}
      - {name: big_1d, aggregate: sum, expr: amount * 2, window: 1d, hop: 1h, offset: 7d}
      - {name: share, derive: tx_1h / NULLIF(tx_1d, 0) + twice, default: 0}
      - {name: twice, derive: HOUR(AS_OF()) * big_1d}
    checks:
      - {type: null_rate, feature: tx_1h, max: 0.3}
feature_services:
  - {name: fraud_v1, features: ["spend:tx_1h", "spend:*", big_1d]}
"""
_WORDS = re.findall(r"[\w.]+|[^\w\s]|\n *", SEED)
_STRAY = ["[", "]", "{", "}", ":", "-", "null", "7", "1e9", "x", "''", "*a", "&a", "<<", "? a", "\n", "- -", "|"]  # fmt: skip
_TOKENS = st.sampled_from(sorted(set(_WORDS)) + _STRAY)
_PIECES = re.split(r"([\w.]+|\n *)", SEED)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return the file above with some pieces replaced, doubled or gone."""
    pieces = list(_PIECES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(pieces) - 1))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "swap"]))
        if kind == "replace":
            pieces[at] = draw(_TOKENS)
        elif kind == "insert":
            pieces.insert(at, draw(_TOKENS))
        elif kind == "delete":
            pieces[at] = ""
        else:
            other = draw(st.integers(0, len(pieces) - 1))
            pieces[at], pieces[other] = pieces[other], pieces[at]
    return "".join(pieces)


def _check(text: str) -> None:
    specs, faults = read_yaml(text, "views.yaml")
    plan, more = resolve_as_far_as_read(specs, is_complete=not (faults and specs == Specs()))
    assert plan is not None or more
    every: list[Fault] = [*faults, *more]
    last_line = text.count("\n") + 1
    for fault in every:
        file, _, line = fault.where.partition(":")
        assert file == "views.yaml"
        assert 1 <= int(line) <= last_line + 1
        assert fault.what


@settings(max_examples=400)
@given(mutated())
def test_a_damaged_file_gives_faults_with_lines(text: str) -> None:
    _check(text)


@given(st.text(max_size=200))
def test_any_text_gives_faults_with_lines(text: str) -> None:
    _check(text)
