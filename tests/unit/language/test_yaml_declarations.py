"""YAML declarations: what they become, and where each fault is said to be."""

import pytest

from millrace.errors import Fault, SpecError
from millrace.export import to_python, to_yaml
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.spec import BatchSource, Check, Entity, Feature, FeatureService, Specs, StreamSource

CARDS = """\
version: millrace/v1
sources:
  - name: cards
    columns:
      id: int64
      ts: timestamp
      customer_id: int64
      amount: decimal(12,2)
    event_time: ts
    event_id: id
    batch: {format: parquet, path: "${MILLRACE_DATA}/cards.parquet"}
    stream: {topic: cards, format: json}
entities:
  - {name: customer, join_key: customer_id, type: int64, description: A card holder.}
feature_views:
  - name: spend
    entity: customer
    source: cards
    start: 2018-04-01
    filter: amount > 0
    tags: {domain: payments, pii: no}
    features:
      - {name: "tx_{window}", aggregate: count, windows: [1h, 1d, 7d]}
      - {name: big_1d, aggregate: sum, expr: "CASE WHEN amount > 100 THEN 1 ELSE 0 END", window: 1d, hop: 1h}
    checks:
      - {type: null_rate, feature: tx_1h, max: 0.3}
feature_services:
  - {name: fraud_v1, features: ["spend:tx_1h", "spend:*"]}
"""


def faults_of(text: str) -> list[Fault]:
    """Return the faults of reading and of meaning, as ``millrace validate`` gathers them."""
    specs, faults = read_yaml(text, "views.yaml")
    _, more = resolve_as_far_as_read(specs, is_complete=not (faults and specs == Specs()))
    return [*faults, *more]


def line_of(text: str, part: str) -> int:
    """Return the first line that holds a part."""
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


def test_a_file_becomes_the_records_it_spells_out() -> None:
    specs, faults = read_yaml(CARDS, "views.yaml")
    assert not faults
    source = specs.sources[0]
    assert list(source.columns.items()) == [
        ("id", "int64"), ("ts", "timestamp"), ("customer_id", "int64"), ("amount", "decimal(12,2)")
    ]  # fmt: skip
    assert (source.event_time, source.event_id, source.allowed_lateness) == ("ts", "id", "1h")
    assert source.batch == BatchSource("parquet", "${MILLRACE_DATA}/cards.parquet")
    assert source.stream == StreamSource("cards", "json")
    assert specs.entities == (Entity("customer", "customer_id", "int64", "A card holder."),)
    view = specs.views[0]
    assert (view.entities, view.start, view.filter) == (("customer",), "2018-04-01", "amount > 0")
    assert view.checks == (Check("null_rate", {"feature": "tx_1h", "max": 0.3}),)
    assert specs.services == (FeatureService("fraud_v1", ("spend:tx_1h", "spend:*")),)


def test_windows_make_one_feature_each_named_by_the_window_as_written() -> None:
    specs, _ = read_yaml(CARDS.replace("[1h, 1d, 7d]", "[60m, lifetime]"), "views.yaml")
    assert specs.views[0].features[:2] == (
        Feature("tx_60m", "count", "60m"),
        Feature("tx_lifetime", "count", "lifetime"),
    )


def test_every_record_knows_its_line() -> None:
    specs, _ = read_yaml(CARDS, "views.yaml")
    assert str(specs.sources[0].where) == "views.yaml:3"
    assert str(specs.sources[0].where.at("columns.amount")) == "views.yaml:8"
    assert str(specs.views[0].where.at("filter")) == "views.yaml:20"
    assert str(specs.views[0].features[3].where) == "views.yaml:24"


def test_scalars_stay_as_they_are_written() -> None:
    text = CARDS.replace("A card holder.", "2018-04-01").replace("pii: no", "pii: no, n: 007")
    specs, faults = read_yaml(text, "views.yaml")
    assert not faults
    assert specs.entities[0].description == "2018-04-01"
    assert specs.views[0].tags == {"domain": "payments", "pii": "no", "n": "007"}


@pytest.mark.parametrize(
    "text",
    ["", "\n# nothing yet\n", "version: millrace/v1\n", "sources:\nentities:\n  # none\n"],
    ids=["empty", "comment", "version", "headings"],
)
def test_a_file_may_declare_nothing(text: str) -> None:
    assert read_yaml(text, "views.yaml") == (Specs(), [])


def test_merge_keys_and_anchors_are_followed() -> None:
    text = CARDS.replace(
        "      - {name: big_1d, aggregate: sum,", "      - &big {name: big_1d, aggregate: sum,"
    ).replace("    checks:", "      - {<<: *big, name: big_7d, window: 7d}\n    checks:")
    specs, faults = read_yaml(text, "views.yaml")
    assert not faults
    last = specs.views[0].features[-1]
    assert isinstance(last, Feature)
    assert (last.name, last.window, last.hop, last.aggregate) == ("big_7d", "7d", "1h", "sum")


def test_a_list_of_merged_mappings_is_followed_too() -> None:
    text = CARDS.replace("- {name: fraud_v1, features:", "- {<<: [{name: a}, {name: b}], features:")
    specs, faults = read_yaml(text, "views.yaml")
    assert (specs.services[0].name, faults) == ("a", [])


# One change of the file above, the line at which the fault must be said to be (by what stands in
# that line), what is said, and the mend.
FAULTS = {
    "no YAML": ("version: millrace/v1", "version: [", "name: cards", "this is no YAML", "quote"),
    "tab": ("  - name: cards", "\t- name: cards", "\t-", "cannot start any token", "spaces"),
    "control character": ("name: cards", "name: \x01cards", "\x01", "this is no YAML", "remove"),
    "two documents": ("entities:", "---\nentities:", "---", "expected a single document", ""),
    "unknown version": ("millrace/v1", "millrace/v9", "v9", "'millrace/v9'", "millrace/v1"),
    "unknown heading": ("entities:", "entitys:", "entitys", "no key 'entitys'", "'entities'"),
    "misspelt key": ("event_id:", "event_ids:", "event_ids", "'event_ids'", "'event_id'"),
    "misspelt required key": ("event_time:", "event_tim:", "event_tim:", "event_tim", "event_time"),
    "filter of one feature": ("name: big_1d,", "name: big_1d, filter: amount > 9,", "big_1d", "a feature has no key 'filter'", "CASE WHEN"),
    "missing key": ("    event_time: ts\n", "", "name: cards", "no event_time", "add event_time"),
    "missing type": (", type: int64", "", "customer, join_key", "an entity has no type", "add"),
    "repeated key": ("    event_id: id", "    event_id: id\n    event_id: ts", "event_id: ts", "stands twice in a source, first in line 10", "keep one"),
    "text for a list": ('["spend:tx_1h", "spend:*"]', "spend", "fraud_v1", "not a list", "[ … ]"),
    "list for a text": ("name: spend", "name: [spend]", "[spend]", "name is a list", "one value"),
    "text for a mapping": ("{domain: payments, pii: no}", "x", "tags: x", "not key: value", ""),
    "text for a feature": ("      - {name: big_1d", "      - big\n      - {name: big_1d", "- big", "a feature is the text 'big'", "{name: …, aggregate: …}"),
    "text for a file": (CARDS, "just text", "just", "a declaration file is the text", ""),
    "text for a batch": ('{format: parquet, path: "${MILLRACE_DATA}/cards.parquet"}', "cards.parquet", "batch: cards", "batch is the text", "{format: …, path: …}"),
    "list for columns": ("      id: int64\n      ts: timestamp\n      customer_id: int64\n      amount: decimal(12,2)", "      - id", "- id", "columns is no mapping", "name: type"),
    "text for a schedule": ("event_id: id", "event_id: id\n    schedule: hourly", "schedule", "schedule is the text 'hourly'", "{refresh: …}"),
    "misspelt key of a schedule": ("event_id: id", "event_id: id\n    schedule:\n      timezon: UTC", "timezon:", "schedule has no key 'timezon'", "'timezone'"),
    "unknown refresh": ("event_id: id", "event_id: id\n    schedule:\n      refresh: hourli", "hourli", "schedule has the refresh 'hourli'", "'hourly'"),
    "empty refresh": ("event_id: id", "event_id: id\n    schedule:\n      refresh: ''", "refresh", "schedule has the refresh ''", "daily, hourly"),
    "bad time": ("event_id: id", "event_id: id\n    schedule:\n      at: 6:00", "at: 6", "at: '6:00' is no time of day", '"06:00"'),
    "unknown zone": ("event_id: id", "event_id: id\n    schedule:\n      at: 06:00\n      timezone: Europe/Berln", "Berln", "'Europe/Berln' is no time zone", "'Europe/Berlin'"),
    "zone without a time": ("event_id: id", "event_id: id\n    schedule:\n      timezone: Europe/Berlin", "timezone", "no at that it could be the zone of", "add at"),
    "no value": ("event_id: id", "event_id:", "event_id", "event_id has no value", "remove"),
    "empty list of features": ("features:\n", "features: []\n    x:\n", "features: []", "'spend' has no features", "list them"),
    "bad type": ("decimal(12,2)", "decimal(39,2)", "39", "precision goes from 1 to 38", "12,2"),
    "unknown type": ("amount: decimal(12,2)", "amount: float", "float", "'float' is not a type", "float64"),
    "cut decimal": ("      id: int64\n      ts: timestamp\n      customer_id: int64\n      amount: decimal(12,2)", "      {id: int64, ts: timestamp, customer_id: int64, amount: decimal(12,2)}", "{id:", "the comma cuts", '"decimal(p,s)"'),
    "bad duration": ("event_id: id", "event_id: id\n    clock_skew: 5 sec", "5 sec", "'5 sec' is not a duration", "90s"),
    "bad window": ("window: 1d", "window: 1w", "1w", "'1w' is not a duration", "7d"),
    "bad end": ("event_id: id", "event_id: id\n    end: 20241001", "20241001", "end: '20241001' is no day", "YYYY-MM-DD"),
    "empty day that is no day": ("event_id: id", "event_id: id\n    empty_days: [saturday, Sundy]", "[saturday, Sundy]", "empty_days: 'Sundy' is no weekday and no day", "did you mean 'sunday'"),
    "empty day of no calendar": ("event_id: id", "event_id: id\n    empty_days: [2026-02-30]", "[2026-02-30]", "'2026-02-30' is no weekday and no day", "YYYY-MM-DD"),
    "empty days all week": ("event_id: id", "event_id: id\n    empty_days: [monday, tuesday, wednesday, thursday, friday, saturday, sunday]", "empty_days", "every weekday", "`end`"),
    "bad late_after": ("event_id: id", "event_id: id\n    late_after: soon", "soon", "late_after: 'soon'", "90s"),
    "late_after of a stream": ('batch: {format: parquet, path: "${MILLRACE_DATA}/cards.parquet"}', "late_after: 6h", "late_after: 6h", "no files that could be late", "freshness"),
    "end before the start": ("event_id: id", "event_id: id\n    end: 2018-04-01", "start: 2018", "view 'spend' starts on 2018-04-01, and source 'cards' ends on 2018-04-01", "move the end"),
    "bad start": ("2018-04-01", "2018-04-31", "04-31", "'2018-04-31' is no day", "2018-04-01"),
    "start as words": ("2018-04-01", "20180401", "20180401", "'20180401' is no day", "YYYY-MM-DD"),
    "window and windows": ("windows: [1h, 1d, 7d]", "window: 1h, windows: [1d]", "tx_", "window and windows", "keep one"),
    "no window": (", windows: [1h, 1d, 7d]", "", "tx_", "a feature has no window", "windows: [1h, 1d]"),
    "empty windows": ("[1h, 1d, 7d]", "[]", "tx_", "windows is empty", "[1h, 1d]"),
    "windows without a template": ('"tx_{window}"', "tx", "name: tx", "3 windows would all be named 'tx'", "tx_{window}"),
    "entity and entities": ("    entity: customer", "    entity: customer\n    entities: [customer]", "entities: [c", "entity and entities", "composite"),
    "no entity": ("    entity: customer\n", "", "name: spend", "a feature view has no entity", "entities: ["),
    "misspelt aggregate": ("aggregate: sum", "aggregate: summ", "summ", "'summ'", "'sum'"),
    "another's word for an aggregate": ("aggregate: sum", "aggregate: mean", "mean", "there is no aggregate 'mean'", "did you mean 'avg'?"),
    "count of different values": ("aggregate: sum", "aggregate: nunique", "nunique", "there is no aggregate 'nunique'", "did you mean 'distinct'"),
    "expression for a column": ('expr: "CASE WHEN amount > 100 THEN 1 ELSE 0 END"', 'column: "amount * 2"', "amount * 2", "no column 'amount * 2'", "that is an expression, not a column: expr: amount * 2"),
    "expression over an unknown column": ('expr: "CASE WHEN amount > 100 THEN 1 ELSE 0 END"', 'column: "amount * price"', "amount * price", "no column 'amount * price'", "expr: amount * price"),
    "column and expr": ("aggregate: sum,", "aggregate: sum, column: amount,", "big_1d", "has column and expr", "keep one"),
    "parameter that is no number": ("aggregate: sum,", "aggregate: sum, k: many,", "many", "k is the text 'many', not a number", "write a plain number"),
    "parameter of another aggregate": ("aggregate: sum,", "aggregate: sum, k: 3,", "k: 3", "sum takes no k", "remove k"),
    "key that is a list": ("    event_id: id", "    ? [event_id]\n    : id\n    event_id: id", "? [", "a key of a source is a list", "one value"),
    "merge of a text": ("    event_id: id", "    event_id: id\n    <<: defaults", "<<", "nothing to merge", "*anchor"),
    "unreadable filter": ("filter: amount > 0", "filter: [amount > 0]", "filter", "filter is a list", "one value"),
    "mapping for columns of another kind": ("      id: int64\n", "      id: [int64]\n", "id: [", "the type of column id is a list", "one value"),
    "service without features": (', features: ["spend:tx_1h", "spend:*"]', "", "fraud_v1", "a feature service has no features", "add features"),
    "mapping for a feature's list": ("windows: [1h, 1d, 7d]", "windows: {a: 1h}", "tx_", "windows is a mapping, not a list", "[ … ]"),
    "check without a type": ("{type: null_rate, feature", "{feature", "max", "a check has no type", "null_rate"),
    "check that is no mapping": ("- {type: null_rate, feature: tx_1h, max: 0.3}", "- null_rate", "- null", "a check is the text", ""),
    "number that readers differ about": ("max: 0.3", "max: 010", "010", "max of the check 'null_rate' is the text '010', not a number", "write a plain number"),
    "word for null": ("pii: no", "pii: ~", "pii", "tag pii has no value", "quote ~ if the text is meant"),
    "argument that readers differ about": ("{type: null_rate, feature: tx_1h, max: 0.3}", "{type: expectation, feature: tx_1h, mode: rows, expect: expect_column_values_to_match_regex, arguments: {regex: 12:30:45}}", "12:30:45", "regex is '12:30:45', which some take for a text", 'quote it if the text is meant: "12:30:45"'),
    "unknown expectation": ("{type: null_rate, feature: tx_1h, max: 0.3}", "{type: expectation, feature: tx_1h, mode: rows, expect: expect_column_values_to_be_betwixt}", "betwixt", "'expect_column_values_to_be_betwixt' is no expectation", "'expect_column_values_to_be_between'"),
    "unknown argument of an expectation": ("{type: null_rate, feature: tx_1h, max: 0.3}", "{type: expectation, feature: tx_1h, mode: rows, expect: expect_column_values_to_be_between, arguments: {min_valu: 0}}", "min_valu", "expect_column_values_to_be_between takes no 'min_valu'", "'min_value'"),
    "missing argument of an expectation": ("{type: null_rate, feature: tx_1h, max: 0.3}", "{type: expectation, feature: tx_1h, mode: rows, expect: expect_column_values_to_be_in_set}", "in_set", "expect_column_values_to_be_in_set needs value_set", "add value_set"),
    "check of an unknown feature": ("feature: tx_1h, max", "feature: tx_2h, max", "tx_2h", "no feature of 'spend'", "tx_1h"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_has_its_line_its_value_and_its_mend(case: str) -> None:
    old, new, place, what, fix = FAULTS[case]
    assert old in CARDS
    text = CARDS.replace(old, new, 1)
    faults = faults_of(text)
    found = [f for f in faults if what in f.what]
    assert found, faults
    assert found[0].where == f"views.yaml:{line_of(text, place)}"
    assert fix in found[0].fix


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_reported_once_and_drags_no_other_along(case: str) -> None:
    old, new, *_ = FAULTS[case]
    # Here the author's other lines do name what is gone, or a stray line stands beside.
    more = {"empty list of features": 3, "unknown heading": 1}
    faults = faults_of(CARDS.replace(old, new, 1))
    assert len(faults) == 1 + more.get(case, 0), faults


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    # Deeper than Python may recurse; the reader's time grows with the square of it.
    specs, faults = read_yaml("[" * 1000, "deep.yaml")
    assert specs == Specs()
    assert faults[0].where == "deep.yaml:1"


def test_arguments_of_an_expectation_may_be_nested_as_it_wants() -> None:
    given = (
        "{type: expectation, feature: tx_1h, mode: rows, "
        "expect: expect_column_kl_divergence_to_be_less_than, arguments: "
        "{partition_object: {bins: [0, 1.5, [x]], weights: {a: 1e3, b: null}}, threshold: 0.10}}"
    )
    text = CARDS.replace("{type: null_rate, feature: tx_1h, max: 0.3}", given)
    assert not faults_of(text)
    assert read_yaml(text, "views.yaml")[0].views[0].checks[0].arguments["arguments"] == {
        "partition_object": {"bins": [0, 1.5, ["x"]], "weights": {"a": 1000.0, "b": None}},
        "threshold": 0.1,
    }


UNSEEN = CARDS.replace(
    "amount: decimal(12,2)", "amount: decimal(12,2)\n      code: string\n      flag: bool"
)


def unseen(column: str, values: str) -> list[str]:
    """Return what is said of a list of values for a column."""
    check = f"{{type: unseen, column: {column}, values: [{values}]}}"
    faults = faults_of(UNSEEN.replace("{type: null_rate, feature: tx_1h, max: 0.3}", check))
    return [f"{fault.what} | {fault.fix}" for fault in faults]


def test_a_scalar_for_a_text_is_the_text_as_written() -> None:
    written = ["NO", "on", "010", "12:30:45", "2024-01-01", "1_000", "1e3", "yes", "y", "0x1f", "1.50", "+1", "=", "<<"]  # fmt: skip
    check = (
        f"{{type: unseen, column: code, values: [{', '.join(written)}, 'null', \"true\", 7, 1.5]}}"
    )
    text = UNSEEN.replace("{type: null_rate, feature: tx_1h, max: 0.3}", check)
    assert not faults_of(text)
    specs, _ = read_yaml(text, "views.yaml")
    values = [*written, "null", "true", 7, 1.5]
    assert specs.views[0].checks[0].arguments["values"] == values
    # An export says the same in both languages.
    assert read_yaml(to_yaml(specs), "x.yaml")[0].views == specs.views
    assert read_python(to_python(specs), "x.py")[0].views == specs.views


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("code", "true", "is the truth value true, where a text is meant | quote it"),
        ("code", "False", "is the truth value false, where a text is meant | quote it"),
        ("code", "~", "is null, where a text is meant | quote it"),
        ("code", "null", "is null, where a text is meant | quote it"),
        ("code", ".inf", "is inf, where a text is meant | quote it"),
        ("flag", "NO", "is 'NO', which is no bool | write true or false"),
        ("flag", "yes", "is 'yes', which is no bool | write true or false"),
        ("flag", "1", "is 1, which is no bool | write true or false"),
        ("id", "010", "is '010', which is no int64 | write a whole number"),
        ("id", "1_000", "is '1_000', which is no int64 | write a whole number"),
        ("id", "1e3", "is '1e3', which is no int64 | write a whole number"),
        ("id", "12:30:45", "is '12:30:45', which is no int64 | write a whole number"),
        ("id", "'10'", "is '10', which is no int64 | write a whole number"),
        ("id", "9223372036854775808", "is 9223372036854775808, beyond int64"),
        ("id", "yes", "is 'yes', which is no int64 | write a whole number"),
    ],
)
def test_a_scalar_of_another_type_is_refused_with_the_mend(
    column: str, value: str, said: str
) -> None:
    (found,) = unseen(column, value)
    assert f"a value of the check 'unseen' {said}" in found


def test_a_scalar_of_the_type_is_taken() -> None:
    assert not unseen("flag", "true, False")
    assert not unseen("id", "10, -3, 0, 9223372036854775807")


@pytest.mark.parametrize("written", ["0.30", "+0.3", ".3", "3e-1"])
def test_a_number_may_be_written_as_one_writes_numbers(written: str) -> None:
    specs, faults = read_yaml(CARDS.replace("max: 0.3", f"max: {written}"), "views.yaml")
    assert not faults
    assert specs.views[0].checks[0].arguments["max"] == 0.3


@pytest.mark.parametrize("written", ["0x1", "1_0", "0b1", ".inf", ".nan", "1:30", "'0.3'", "true"])
def test_a_number_in_other_ways_is_refused(written: str) -> None:
    (fault,) = faults_of(CARDS.replace("max: 0.3", f"max: {written}"))
    assert "not a number" in fault.what


def test_a_text_argument_stays_as_written() -> None:
    text = CARDS.replace("max: 0.3", "max: 0.3, owner: 007, runbook: no")
    arguments = read_yaml(text, "views.yaml")[0].views[0].checks[0].arguments
    assert (arguments["owner"], arguments["runbook"]) == ("007", "no")
    assert not faults_of(text)


def test_a_value_set_of_another_type_than_the_column_s_is_refused() -> None:
    check = (
        "{type: expectation, column: %s, mode: rows, expect: expect_column_values_to_be_in_set, "
        "arguments: {value_set: [%s]}}"
    )
    for column, values, count in (("code", "1, a", 1), ("id", "1, a", 1), ("code", "a", 0)):
        text = UNSEEN.replace(
            "{type: null_rate, feature: tx_1h, max: 0.3}", check % (column, values)
        )
        assert len(faults_of(text)) == count


def test_all_faults_of_a_file_come_together() -> None:
    text = (
        CARDS.replace("event_id: id", "event_id: idd")
        .replace("window: 1d", "window: 1x")
        .replace("join_key: customer_id", "join_key: custom_id")
        .replace("spend:tx_1h", "spend:tx_9h")
    )
    lines = {fault.where for fault in faults_of(text)}
    expected = ("event_id: idd", "window: 1x", "entity: customer", "tx_9h")
    assert lines == {f"views.yaml:{line_of(text, part)}" for part in expected}


def test_resolve_raises_one_error_with_every_fault() -> None:
    specs, _ = read_yaml(
        CARDS.replace("event_id: id", "event_id: idd").replace("1d, h", "1x, h"), "v"
    )
    with pytest.raises(SpecError, match="2 faults in the declarations") as caught:
        resolve(specs)
    assert [f.where for f in caught.value.faults] == ["v:10", "v:24"]
