"""The JSON Schema of declarations and the reference: of the loader's own table, and kept fresh."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from cli.main import build_app
from cli.schema import schema_text
from millrace.faults import FaultList
from millrace.load.keys import FILE, PARAMETERS, Keys
from millrace.load.nodes import NodeReader
from millrace.load.yaml import read_yaml
from millrace.reference import page
from millrace.resolve import resolve_as_far_as_read

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "docs" / "millrace.schema.json"
EXAMPLES = sorted(
    path
    for folder in ("feature_assets", "benchmarks", "tests/golden/views")
    for path in (ROOT / folder).rglob("*.yaml")
)
HEAD = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def document(text: str) -> Any:
    """Return a file as readers of YAML 1.2 have it, which is what editors are."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return None if root is None else NodeReader("x.yaml", FaultList()).plain(root, "the file")


def test_the_committed_schema_is_what_the_command_prints() -> None:
    """After a change of the keys: ``millrace schema > docs/millrace.schema.json``."""
    done = CliRunner().invoke(build_app(), ["schema"])
    assert done.exit_code == 0
    assert done.stdout == schema_text() == SCHEMA.read_text(encoding="utf-8")


def test_the_reference_is_fresh() -> None:
    """After a change: ``python -m millrace.reference > docs/reference.md``."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_names_the_schema_and_is_valid_by_it(
    path: Path, validator: Draft202012Validator
) -> None:
    text = path.read_text(encoding="utf-8")
    named = HEAD.match(text)
    assert named is not None
    assert (path.parent / named[1]).resolve() == SCHEMA
    assert [error.message for error in validator.iter_errors(document(text))] == []


EVERYTHING = """\
version: millrace/v1
sources:
  - name: cards
    description: 7
    columns:
      at: timestamp
      who: {type: int64, from: CustomerID, description: no}
      amount: "decimal(12,2)"
      code: string
    event_time: at
    event_id: who
    ingest_time: at
    allowed_lateness: 1h
    clock_skew: 5s
    dedup_horizon: 1d
    batch: {format: parquet, path: cards.parquet}
    stream: {topic: cards, format: json}
    schedule: {refresh: daily, at: 06:00, timezone: UTC}
    end: 2024-10-01
    empty_days: [saturday, 2024-12-25]
    late_after: 6h
entities:
  - {name: customer, join_key: who, type: int64, description: x}
feature_views:
  - name: spend
    description: x
    entity: customer
    source: cards
    start: 2024-01-01
    filter: amount > 0
    ttl: 30d
    freshness: 1m
    online: true
    owner: 007
    tags: {pii: no, n: 1}
    features:
      - {name: "n_{window}", aggregate: count, windows: [1h, lifetime]}
      - {name: a, aggregate: sum, column: amount, window: 7d, hop: 1d, offset: 7d, default: 0, description: x}
      - {name: b, aggregate: avg, expr: amount * 2, window: 1d, default: 0.5}
    checks:
      - {type: null_rate, feature: a, max: 0.3, owner: me, runbook: x, severity: warn}
      - {type: unseen, column: code, values: [NO, 1], max: 0.1}
      - {type: drift, feature: a, metric: js, baseline: {start: 2024-01-01, end: 2024-02-01}}
      - {type: freshness, max_age: 1h}
      - {type: expectation, column: code, mode: rows, expect: expect_column_values_to_match_regex, arguments: {regex: "^a"}}
feature_services:
  - {name: fraud, features: ["spend:*", a], description: x}
"""


def faults_of(text: str) -> list[str]:
    specs, faults = read_yaml(text, "x.yaml")
    _, more = resolve_as_far_as_read(specs)
    return [fault.what for fault in [*faults, *more]]


def test_what_the_loader_takes_is_valid(validator: Draft202012Validator) -> None:
    assert faults_of(EVERYTHING) == []
    assert [error.message for error in validator.iter_errors(document(EVERYTHING))] == []
    for empty in ("", "sources:\nentities:\n"):
        assert validator.is_valid(document(empty))


def _records(value: Any, keys: Keys) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Yield every record in a document with the keys that it may have."""
    yield keys, value
    for name, key in keys.keys.items():
        if isinstance(key.form, Keys) and name in value:
            for one in value[name] if key.is_list else [value[name]]:
                yield from _records(one, key.form)


def test_every_key_is_in_the_sample() -> None:
    used = [(keys.of, set(record)) for keys, record in _records(document(EVERYTHING), FILE)]
    for keys, _ in _records(document(EVERYTHING), FILE):
        left = set(keys.keys) - {n for of, names in used if of == keys.of for n in names}
        assert left <= {"entities", "ps", *PARAMETERS}, keys.of


def test_an_unknown_and_a_missing_key_of_any_record_is_found_as_the_loader_finds_it(
    validator: Draft202012Validator,
) -> None:
    count = len(list(_records(document(EVERYTHING), FILE)))
    for place in range(count):
        whole = document(EVERYTHING)
        keys, record = list(_records(whole, FILE))[place]
        record["unheard_of"] = 1
        assert not validator.is_valid(whole), keys.of
        assert any("no key 'unheard_of'" in what for what in faults_of(yaml.safe_dump(whole)))
        for name in keys.required:
            whole = document(EVERYTHING)
            _, record = list(_records(whole, FILE))[place]
            del record[name]
            assert not validator.is_valid(whole), (keys.of, name)
            assert any(f"has no {name}" in what for what in faults_of(yaml.safe_dump(whole)))


CHANGES: Mapping[str, tuple[str, str]] = {
    "two windows": ("window: 7d", "window: 7d, windows: [1d]"),
    "no window": ("window: 7d, ", ""),
    "column and expr": ("column: amount", "column: amount, expr: amount"),
    "no entity": ("    entity: customer\n", ""),
    "neither batch nor stream": ("    batch: {format: parquet, path: cards.parquet}\n    stream: {topic: cards, format: json}\n", ""),
    "format": ("format: parquet", "format: orc"),
    "type": ("code: string", "code: text"),
    "name": ("  - name: spend", "  - name: Spend"),
    "column's name": ("      code: string", "      Code: string"),
    "duration": ("ttl: 30d", "ttl: 30 days"),
    "day": ("start: 2024-01-01\n", "start: 20240101\n"),
    "time": ("at: 06:00", "at: 6:00"),
    "aggregate": ("aggregate: avg", "aggregate: mean"),
    "version": ("millrace/v1", "millrace/v9"),
    "list for a text": ("owner: 007", "owner: [a]"),
    "text for a list": ("[1h, lifetime]", "1h"),
    "type of a check": ("type: null_rate", "type: nulls"),
    "argument of a check": ("max: 0.3", "maximum: 0.3"),
    "number of a check": ("max: 0.3", "max: '0.3'"),
    "share of a check": ("max: 0.3", "max: 3"),
    "metric": ("metric: js", "metric: ks"),
    "expectation": ("expect_column_values_to_match_regex", "expect_regex"),
    "flag": ("online: true", "online: yes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_fault_of_shape_is_found_as_the_loader_finds_it(
    case: str, validator: Draft202012Validator
) -> None:
    old, new = CHANGES[case]
    assert old in EVERYTHING
    text = EVERYTHING.replace(old, new, 1)
    assert faults_of(text)
    assert not validator.is_valid(document(text))
