"""Python declarations: what they become, and that no author's code can crash the reader."""

from pathlib import Path

import pytest

from millrace.errors import Fault, SpecError
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.spec import (
    BatchSource,
    Check,
    Feature,
    FeatureService,
    Schedule,
    Specs,
    StreamSource,
)

CARDS = """\
from millrace import BatchSource, Entity, FeatureService, FeatureView, Source, avg, count, last, sum

card_transactions = Source(
    "cards",
    columns={"id": "int64", "ts": "timestamp", "customer_id": "int64", "amount": "float64"},
    event_time="ts",
    event_id="id",
    batch=BatchSource("parquet", "cards.parquet"),
)
customer = Entity("customer", "customer_id", "int64")
customer_spend = FeatureView("customer_spend", entity=customer, source=card_transactions, start="2018-04-01",
    features=[count().over("1h").named("customer_tx_count_1h"), *avg("amount").over("1d", "7d")])
"""


def read(text: str) -> Specs:
    """Return the specs of a file that has no fault."""
    specs, faults = read_python(text, "views.py")
    assert not faults
    return specs


def faults_of(text: str) -> list[Fault]:
    """Return the faults of reading and of meaning."""
    specs, faults = read_python(text, "views.py")
    _, more = resolve_as_far_as_read(specs, is_complete=not faults)
    return [*faults, *more]


def test_the_example_of_the_contract_is_read() -> None:
    specs = read(CARDS)
    view = specs.views[0]
    assert (view.name, view.entities, view.source) == ("customer_spend", ("customer",), "cards")
    assert view.features == (
        Feature("customer_tx_count_1h", "count", "1h"),
        Feature("amount_avg_1d", "avg", "1d", column="amount"),
        Feature("amount_avg_7d", "avg", "7d", column="amount"),
    )
    assert list(resolve(specs).views) == ["customer_spend"]


def test_the_same_in_yaml_is_the_same_spec() -> None:
    yaml_text = """
sources:
  - name: cards
    columns: {id: int64, ts: timestamp, customer_id: int64, amount: float64}
    event_time: ts
    event_id: id
    batch: {format: parquet, path: cards.parquet}
entities: [{name: customer, join_key: customer_id, type: int64}]
feature_views:
  - name: customer_spend
    entity: customer
    source: cards
    start: 2018-04-01
    features:
      - {name: customer_tx_count_1h, aggregate: count, window: 1h}
      - {name: "amount_avg_{window}", aggregate: avg, column: amount, windows: [1d, 7d]}
"""
    assert read_yaml(yaml_text, "views.yaml") == (read(CARDS), [])


def test_default_names_say_what_is_counted() -> None:
    more = """
views = [FeatureView("more", entity="customer", source="cards", start="2018-04-01", features=[
    count().over("1h", "lifetime"), count("amount").over("1h"), last("id").over("1h")])]
"""
    names = [f.name for f in read(CARDS + more).views[1].features]
    assert names == ["count_1h", "count_lifetime", "amount_count_1h", "id_last_1h"]


def test_every_step_of_a_builder_reaches_the_feature() -> None:
    more = """
view = FeatureView("more", entity="customer", source="cards", start="2018-04-01", features=
    sum(expr="amount * 2").over("1d", "2d").named("double_{window}").hop("1h").offset("7d").described("Twice."))
"""
    assert read(CARDS + more).views[1].features[1] == Feature(
        "double_2d", "sum", "2d", expr="amount * 2", hop="1h", offset="7d", description="Twice."
    )


def test_every_field_of_yaml_can_be_said_in_python() -> None:
    more = """
from datetime import date
from millrace import Check, Schedule, StreamSource
other = Source("other", columns={"at": "timestamp", "k": "string", "seen": "timestamp"}, event_time="at",
    ingest_time="seen", allowed_lateness="2h", clock_skew="1s", dedup_horizon="3d", description="Other.",
    batch={"format": "csv", "path": "o.csv"}, stream={"topic": "other"}, schedule={"refresh": "hourly"})
third = Source("third", columns={"at": "int64", "k": "string"}, event_time="at", stream=StreamSource("t", "avro"),
    schedule=Schedule(at="06:00", timezone="Europe/Berlin"))
pair = FeatureView("pair", entities=[customer, Entity("k", "k", "string")], source="other", start=date(2020, 1, 2),
    features=[count().over("1h")], filter="k <> ''", ttl="1d", freshness="1m", owner="me", tags={"a": 1},
    checks=[Check("null_rate", feature="count_1h", max=0), {"type": "range", "min": 0}], description="Both.")
service = FeatureService("fraud", [customer_spend, "pair:count_1h"], description="A model.")
"""
    specs = read(CARDS + more)
    other, third, pair = specs.sources[1], specs.sources[2], specs.views[1]
    assert other.batch == BatchSource("csv", "o.csv")
    assert other.stream == StreamSource("other", "json")
    assert third.stream == StreamSource("t", "avro")
    assert other.schedule == Schedule("hourly")
    assert third.schedule == Schedule("daily", "06:00", "Europe/Berlin")
    assert (other.ingest_time, other.dedup_horizon, other.clock_skew) == ("seen", "3d", "1s")
    assert (pair.entities, pair.start, pair.tags) == (("customer", "k"), "2020-01-02", {"a": "1"})
    assert pair.checks == (
        Check("null_rate", {"feature": "count_1h", "max": 0}),
        Check("range", {"min": 0}),
    )
    assert specs.services == (
        FeatureService("fraud", ("customer_spend:*", "pair:count_1h"), "A model."),
    )


def test_an_entity_that_only_a_view_names_is_declared_too() -> None:
    text = CARDS.replace('customer = Entity("customer", "customer_id", "int64")\n', "").replace(
        "entity=customer", 'entity=Entity("customer", "customer_id", "int64")'
    )
    assert [e.name for e in read(text).entities] == ["customer"]


def test_lists_and_dicts_are_looked_into_and_a_view_counts_once() -> None:
    specs = read(
        CARDS + "again = customer_spend\nall_views = [customer_spend]\nd = {1: customer}\n"
    )
    assert (len(specs.views), len(specs.entities)) == (1, 1)


def test_records_know_the_line_that_constructs_them() -> None:
    specs = read(CARDS)
    assert str(specs.sources[0].where) == "views.py:3"
    assert str(specs.views[0].where) == "views.py:11"
    assert str(specs.views[0].features[0].where) == "views.py:12"


def test_what_a_file_prints_stays_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    read("print('loading')\n")
    assert capsys.readouterr() == ("", "loading\n")


# Lines added to the file above: at which of them the fault is, what is said, and the mend.
FAULTS = {
    "syntax": ("x = (\n", 1, "this is no Python: '(' was never closed", ""),
    "exception": ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero", ""),
    "within a function": ("def f():\n    raise KeyError('k')\nf()\n", 2, "KeyError: 'k'", ""),
    "exit": ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3", ""),
    "exception of no kind": ("class Stop(BaseException): pass\nraise Stop('now')\n", 2, "Stop: now", ""),
    "unknown import": ("from millrace import FeatureVew\n", 1, "cannot import name", ""),
    "unknown name": ("x = Chek('a')\n", 1, "name 'Chek' is not defined", "'Check'"),
    "unknown keyword": ("e = Entity('a', 'b', typ='int64')\n", 1, "Entity takes no 'typ'", "'type'"),
    "unknown keyword of a step": ("x = count().over('1h', ofset='1d')\n", 1, "over takes no 'ofset'", "'offset'"),
    "unknown keyword of an aggregate": ("x = avg('amount', exp='amount')\n", 1, "avg takes no 'exp'", "'expr'"),
    "missing argument": ("e = Entity('a', 'b')\n", 1, "Entity: missing a required argument: 'type'", "write Entity(name"),
    "surplus argument": ("x = count('a', 'b')\n", 1, "count: too many positional arguments", "write count(column"),
    "import of another's word": ("from millrace import mean\n", 1, "cannot import name 'mean'", "did you mean 'avg'?"),
    "expression for a column": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    avg('amount * 2').over('1h').named('n')])\n", 2, "the source has no column 'amount * 2'", "expr='amount * 2'"),
    "columns as a list": ("s = Source('s', columns=['a'], event_time='a')\n", 1, "columns is a list", "a dict of name"),
    "batch as text": ("s = Source('s', columns={}, event_time='a', batch='x.csv')\n", 1, "batch is a str", "BatchSource(format, path)"),
    "stream as text": ("s = Source('s', columns={}, event_time='a', stream='x')\n", 1, "stream is a str", "StreamSource(topic"),
    "schedule as text": ("s = Source('s', columns={}, event_time='a', schedule='hourly')\n", 1, "schedule is a str: hourly", 'Schedule("hourly"'),
    "schedule of unknown keys": ("s = Source('s', columns={}, event_time='a', schedule={'every': 'hour'})\n", 1, "schedule is a dict", "Schedule("),
    "unknown keyword of a schedule": ("from millrace import Schedule\ns = Schedule('hourly', timezon='UTC')\n", 2, "Schedule takes no 'timezon'", "'timezone'"),
    "bad time of a schedule": ("from millrace import Schedule\ns = Source('s', columns={'a': 'timestamp'}, event_time='a', batch=BatchSource('csv', 'x'),\n    schedule=Schedule(at='6am'))\n", 3, "at: '6am' is no time of day", "HH:MM"),
    "feature as text": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=['x'])\n", 1, "a feature is a str: x", 'count().over("1h")'),
    "check as text": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[], checks=['x'])\n", 1, "a check is a str: x", "Check("),
    "no entity": ("v = FeatureView('v', source='cards', start='2020-01-01', features=[])\n", 1, "'v' needs entity or entities", "composite"),
    "entity and entities": ("v = FeatureView('v', entity='a', entities=['a'], source='cards', start='2020-01-01', features=[])\n", 1, "not both", "composite"),
    "one name, two windows": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    count().over('1h', '1d').named('n')])\n", 2, "2 windows would all be named 'n'", '.named("n_{window}")'),
    "expression without a name": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    avg(expr='amount + 1').over('1h')])\n", 2, "avg of an expression has no name", ".named("),
    "no window": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    avg('amount').named('n')])\n", 2, "feature 'n' has no window", '.over("1h")'),
    "bound to nothing": ("FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[count().over('1h')])\n", 1, "'v' is constructed here, but bound", "bind it"),
    "number for a duration": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[count().over('1h')], ttl=60)\n", 1, "'60' is not a duration", "90s"),
    "units that lie ahead": ("from millrace import tumbling\nv = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    count().over(tumbling('1d', previous=-1))])\n", 3, "previous: -1 is no number of whole units", "write 0"),
    "rank below all": ("from millrace import percentile\nv = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    percentile('amount', p=-1).over('1h')])\n", 3, "p is -1, outside 0 to 100", "0 to 100"),
    "window in words": ("v = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    count().over('7 days')])\n", 2, "'7 days' is not a duration", "7d"),
    "two zones, one name": ("from millrace import tumbling\nv = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    count().over(tumbling('1d', timezone='Asia/Tokyo'), tumbling('1d'))])\n", 3, "a feature 'count_tumbling_1d' already, at", "no time zone and no max"),
    "two ends, one name": ("from millrace import session\nv = FeatureView('v', entity='customer', source='cards', start='2020-01-01', features=[\n    count().over(session('5m', max='1h'), session('5m', max='1d'))])\n", 3, "a feature 'count_session_5m' already, at", "no time zone and no max"),
    "window of a derived feature": ("from millrace import derived\nd = derived('n + 1').over('1h')\n", 2, "a derived feature has no step 'over'", "windows are those of the features"),
    "hop of a derived feature": ("from millrace import derived\nd = derived('n + 1').hop('1h')\n", 2, "a derived feature has no step 'hop'", "windows are those of the features"),
    "unknown step of a derived feature": ("from millrace import derived\nd = derived('n + 1').nmed('n')\n", 2, "a derived feature has no step 'nmed'", "did you mean 'named'?"),
    "unknown step": ("x = count().ovr('1h')\n", 1, "an aggregate has no step 'ovr'", "did you mean 'over'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_has_its_line_and_its_mend(case: str) -> None:
    more, line, what, fix = FAULTS[case]
    faults = faults_of(CARDS + more)
    assert len(faults) == 1, faults
    assert what in faults[0].what
    assert fix in faults[0].fix
    assert faults[0].where == f"views.py:{len(CARDS.splitlines()) + line}"


@pytest.mark.parametrize(
    "name", ["sum", "avg", "min", "max", "stddev", "variance", "first", "last"]
)
def test_every_aggregate_has_its_function(name: str) -> None:
    more = f"""
import millrace
v = FeatureView("v", entity="customer", source="cards", start="2020-01-01",
    features=millrace.{name}("amount").over("1h"))
"""
    assert read(CARDS + more).views[1].features == (
        Feature(f"amount_{name}_1h", name, "1h", column="amount"),
    )


def test_a_null_byte_is_a_fault() -> None:
    assert "this is no Python" in faults_of("x = '\x00'\n")[0].what


@pytest.mark.parametrize("text", ["(" * 50_000 + ")" * 50_000, "-" * 100_000 + "1"])
def test_nesting_beyond_the_compiler_is_a_fault(text: str) -> None:
    _, faults = read_python(text, "deep.py")
    assert "this is no Python" in faults[0].what


def test_an_error_of_a_foreign_module_is_said_at_the_file_s_own_line() -> None:
    _, faults = read_python("import json\n\njson.loads('{')\n", "views.py")
    assert faults[0].where == "views.py:3"


def test_constructors_work_outside_of_a_file_too() -> None:
    from millrace import Entity

    entity = Entity("customer", "customer_id", "int64")
    assert Path(entity.where.file).name == Path(__file__).name


def test_over_takes_the_hop_and_the_offset_too() -> None:
    from millrace import avg

    (at_once,) = avg("amount").over("7d", offset="7d", hop="1d")
    (in_steps,) = avg("amount").over("7d").hop("1d").offset("7d")
    assert at_once == in_steps
    assert (at_once.hop, at_once.offset) == ("1d", "7d")


def test_who_only_looks_for_a_step_finds_none() -> None:
    from copy import copy

    from millrace import count, derived

    for one in (count().over("1h"), derived("n + 1")):
        assert not hasattr(one, "dtype")
        assert copy(one) == one


def test_a_wrong_call_outside_of_a_file_names_the_line_too() -> None:
    from millrace import sum

    with pytest.raises(SpecError, match="over takes no 'windows'") as caught:
        sum("amount").over(windows=["1h"])  # type: ignore[call-arg]
    assert Path(__file__).name in caught.value.where


def test_a_faulty_constructor_outside_of_a_file_raises() -> None:
    from millrace import Source

    with pytest.raises(SpecError, match="columns is a list") as caught:
        Source("s", columns=["a"], event_time="a")  # type: ignore[arg-type]
    assert Path(__file__).name in caught.value.where
