"""Resolving: what a plan fixes, and every rule that refuses a declaration."""

import pickle
from dataclasses import replace
from datetime import date, time
from typing import Any

import pytest

from millrace.errors import SpecError
from millrace.plan import Plan, SchedulePlan
from millrace.resolve import resolve
from millrace.rules.windows import nearest_hops_ms
from millrace.spec import (
    BatchSource,
    Check,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Location,
    Schedule,
    Source,
    Specs,
    StreamSource,
)
from millrace.types import FLOAT64, INT64, decimal
from millrace.windows import Lifetime, Sliding

H, D = 3_600_000, 86_400_000

COLUMNS = {
    "id": "int64", "ts": "timestamp", "arrived": "timestamp", "day": "date", "at_ms": "int64",
    "customer_id": "int64", "terminal_id": "string", "amount": "decimal(12,2)", "fee": "float64",
    "is_fraud": "bool", "n": "int32",
}  # fmt: skip
CARDS = Source("cards", COLUMNS, "ts", event_id="id", batch=BatchSource("parquet", "cards.parquet"))
CUSTOMER = Entity("customer", "customer_id", "int64")
TERMINAL = Entity("terminal", "terminal_id", "string")
COUNT = Feature("tx_1h", "count", "1h")
VIEW = FeatureView("spend", ("customer",), "cards", "2018-04-01", (COUNT,))


def specs_of(*views: FeatureView, **changes: Any) -> Specs:
    """Return the sources and entities above with some views."""
    specs = Specs((CARDS,), (CUSTOMER, TERMINAL), views or (VIEW,))
    return replace(specs, **changes)


def plan_of_features(*features: Feature, **changes: Any) -> Plan:
    """Return the plan of one view with these features."""
    return resolve(specs_of(replace(VIEW, features=features, **changes)))


def whats_of(specs: Specs) -> list[str]:
    """Return what is wrong and how to mend it, a line for each fault."""
    with pytest.raises(SpecError) as caught:
        resolve(specs)
    return [f"{f.where}: {f.what} | {f.fix}" for f in caught.value.faults]


def the_fault(specs: Specs) -> str:
    """Return the one fault there is."""
    (only,) = whats_of(specs)
    return only


def fault_of_view(**changes: Any) -> str:
    """Return the one fault of the view above with some fields changed."""
    return the_fault(specs_of(replace(VIEW, **changes)))


def fault_of_source(**changes: Any) -> str:
    """Return the one fault of the source above with some fields changed."""
    return the_fault(specs_of(sources=(replace(CARDS, **changes),)))


def fault_of_feature(**changes: Any) -> str:
    """Return the one fault of a sum over an hour with some fields changed."""
    feature = replace(Feature("x", "sum", "1h", column="amount"), **changes)
    return fault_of_view(features=(feature,))


class TestPlan:
    def test_types_hops_and_measures_are_fixed(self) -> None:
        plan = plan_of_features(
            Feature("a", "avg", "7d", column="amount"),
            Feature("b", "sum", "90s", expr=" amount "),
            Feature("c", "count", "lifetime"),
            Feature("d", "stddev", "1d", column="fee", offset="7d"),
        )
        a, b, c, d = plan.view("spend").features
        assert a.measure is b.measure
        assert [m.name for m in plan.view("spend").measures] == ["m0", "m1"]
        assert (c.measure, d.measure) == (None, plan.view("spend").measures[1])
        assert [f.type for f in (a, b, c, d)] == [FLOAT64, decimal(22, 2), INT64, FLOAT64]
        assert [f.window for f in (a, b, c, d)] == [
            Sliding(7 * D, H), Sliding(90_000, 1_000), Lifetime(D), Sliding(D, H, 7 * D)
        ]  # fmt: skip

    def test_source_rules_are_milliseconds(self) -> None:
        source = resolve(specs_of()).sources["cards"]
        assert source.allowed_lateness_ms == H
        assert (source.clock_skew_ms, source.dedup_horizon_ms) == (5_000, D)

    def test_a_composite_key_keeps_its_order(self) -> None:
        plan = resolve(specs_of(replace(VIEW, entities=("terminal", "customer"))))
        assert plan.view("spend").join_keys == ("terminal_id", "customer_id")

    def test_a_plan_pickles(self) -> None:
        plan = plan_of_features(COUNT, filter="amount > 0", tags={"a": "b"})
        assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 - our own bytes

    @pytest.mark.parametrize("column", ["ts", "day", "at_ms"])
    def test_event_time_may_be_a_timestamp_a_date_or_epoch_milliseconds(self, column: str) -> None:
        plan = resolve(specs_of(sources=(replace(CARDS, event_time=column),)))
        assert plan.sources["cards"].event_time == column

    def test_all_declared_durations_reach_the_view(self) -> None:
        view = plan_of_features(COUNT, ttl="30d", freshness="1m").view("spend")
        assert (view.ttl_ms, view.freshness_ms, view.start) == (30 * D, 60_000, date(2018, 4, 1))

    def test_nothing_declared_is_an_empty_plan(self) -> None:
        assert resolve(Specs()) == Plan({}, {}, {}, {})


class TestNames:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("Spend", "'Spend' cannot name a feature view | names are small letters"),
            ("card spend", "a letter first: card_spend"),
            ("1st", "a letter first"),
            ("", "'' cannot name"),
            ("x" * 64, "has 64 characters | at most 63"),
        ],
    )
    def test_only_identifiers_name_things(self, name: str, said: str) -> None:
        assert said in fault_of_view(name=name)

    def test_the_longest_name_has_63_characters(self) -> None:
        resolve(specs_of(replace(VIEW, name="x" * 63)))

    @pytest.mark.parametrize("name", ["event_time", "event_date", "feature_version"])
    def test_columns_of_the_tables_cannot_name_features(self, name: str) -> None:
        assert "the platform has a column of that name" in fault_of_feature(name=name)

    def test_a_join_key_cannot_name_a_feature(self) -> None:
        assert "it is a join key of the view" in fault_of_feature(name="customer_id")

    @pytest.mark.parametrize("name", ["_event_ms", "event_date", "feature_version"])
    def test_columns_of_the_platform_cannot_be_declared(self, name: str) -> None:
        assert f"'{name}' cannot name a column" in fault_of_source(
            columns={**COLUMNS, name: "date"}
        )

    @pytest.mark.parametrize("key", ["rows", "tile_start_ms", "event_time", "m0_count", "m0"])
    def test_columns_of_tiles_cannot_be_join_keys(self, key: str) -> None:
        source = replace(CARDS, columns={**COLUMNS, key: "int64"})
        entity = Entity("customer", key, "int64")
        found = the_fault(specs_of(sources=(source,), entities=(entity,)))
        assert f"'{key}' cannot name a join key" in found


class TestDuplicates:
    def test_files_may_repeat_a_source_and_an_entity_of_one_meaning(self) -> None:
        again = replace(specs_of(), views=(), entities=(replace(CUSTOMER, description="Other."),))
        plan = resolve(specs_of() + replace(again, sources=(replace(CARDS, description="Other."),)))
        assert plan.entities["customer"].description == ""

    def test_a_source_of_another_meaning_is_a_fault_that_names_both_places(self) -> None:
        first = replace(CARDS, where=Location("a.yaml", 3))
        second = replace(CARDS, allowed_lateness="2h", where=Location("b.yaml", 7))
        found = the_fault(specs_of(sources=(first, second)))
        assert found.startswith("b.yaml:7: a source named 'cards' is declared already at a.yaml:3")

    def test_an_entity_of_another_meaning_is_a_fault(self) -> None:
        entities = (CUSTOMER, replace(CUSTOMER, join_key="id"))
        assert "an entity named 'customer'" in the_fault(specs_of(entities=entities))

    def test_two_views_of_one_name_are_a_fault_even_if_alike(self) -> None:
        first = replace(VIEW, where=Location("a.yaml", 3))
        second = replace(VIEW, where=Location("b.yaml", 7))
        found = the_fault(specs_of(first, second))
        assert found.startswith(
            "b.yaml:7: a feature view named 'spend' is declared already at a.yaml:3"
        )

    def test_two_services_of_one_name_are_a_fault(self) -> None:
        service = FeatureService("s", ("tx_1h",))
        found = the_fault(specs_of(services=(service, replace(service, description="again"))))
        assert "a feature service named 's' is declared already" in found

    def test_a_repeated_feature_is_a_fault(self) -> None:
        first = replace(COUNT, where=Location("a.yaml", 5))
        second = replace(COUNT, window="1d", where=Location("a.yaml", 6))
        found = fault_of_view(features=(first, second))
        assert found.startswith("a.yaml:6: view 'spend' has a feature 'tx_1h' already, at a.yaml:5")

    def test_faults_within_a_second_declaration_are_told_too(self) -> None:
        second = replace(VIEW, start="never")
        assert len(whats_of(specs_of(VIEW, second))) == 2


class TestSources:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"event_time": "tss"}, "event_time names 'tss', which is no column | did you mean 'ts'"),
            ({"event_time": "amount"}, "type decimal(12,2) | it must be timestamp or date or int64 (epoch milliseconds)"),
            ({"event_id": "idd"}, "event_id names 'idd', which is no column | did you mean 'id'"),
            ({"event_id": "fee"}, "event_id is a column of type float64 | it must be int32 or int64 or string"),
            ({"ingest_time": "arived"}, "which is no column | did you mean 'arrived'"),
            ({"ingest_time": "at_ms"}, "ingest_time is a column of type int64 | it must be timestamp"),
            ({"allowed_lateness": "soon"}, "allowed_lateness: 'soon' is not a duration | write a whole number"),
            ({"clock_skew": "5"}, "clock_skew: '5' is not a duration"),
            ({"dedup_horizon": "0s"}, "dedup_horizon is 0s | dedup_horizon must be above 0"),
            ({"allowed_lateness": "99999d"}, "more than a hundred years"),
            ({"batch": None}, "source 'cards' has neither batch nor stream"),
            ({"batch": BatchSource("parkuet", "x")}, "batch has the format 'parkuet' | did you mean 'parquet'"),
            ({"batch": BatchSource("csv", " ")}, "batch has an empty path"),
            ({"stream": StreamSource("t", "xml")}, "stream has the format 'xml' | known: json"),
            ({"stream": StreamSource("t", "avro")}, "nothing reads streams of format avro yet: not Flink, not the archive | send json"),
            ({"schedule": Schedule("weekly")}, "schedule has the refresh 'weekly' | known: daily, hourly"),
            ({"schedule": Schedule(at="24:00")}, "at: '24:00' is no time of day | write HH:MM, 00:00 to 23:59"),
            ({"schedule": Schedule(at="06:00:00")}, "at: '06:00:00' is no time of day"),
            ({"schedule": Schedule(at="06:00", timezone="CEST")}, "'CEST' is no time zone | did you mean"),
            ({"schedule": Schedule(at="06:00", timezone="Europe")}, "'Europe' is no time zone"),
            ({"schedule": Schedule(at="06:00", timezone="../etc/passwd")}, "'../etc/passwd' is no time zone | write an IANA name"),
            ({"schedule": Schedule(timezone="UTC")}, "schedule has the timezone 'UTC', but no at that it could be the zone of | add at"),
            ({"stream": StreamSource("a b")}, "'a b' cannot name a topic"),
            ({"columns": {**COLUMNS, "n": "decimal(2,3)"}}, "column 'n': decimal(2,3): precision goes"),
            ({"columns": {**COLUMNS, "n": "double"}}, "'double' is not a type | did you mean 'float64'? types are"),
            ({"columns": {**COLUMNS, "n": "geometry"}}, "'geometry' is not a type | types are int32"),
            ({"columns": {**COLUMNS, "n": "decimal"}}, "'decimal' is not a type | decimal(12,2), for one"),
            ({"columns": {**COLUMNS, "n": "Int64"}}, "column 'n': 'Int64' is not a type | did you mean 'int64'? types are int32"),
        ],
    )  # fmt: skip
    def test_each_rule_of_sources(self, changes: dict[str, Any], said: str) -> None:
        assert said in fault_of_source(**changes)

    def test_a_source_needs_columns(self) -> None:
        assert "source 'cards' has no columns" in fault_of_source(columns={})

    def test_a_schedule_is_read_and_is_daily_in_utc_without_one(self) -> None:
        assert resolve(specs_of()).sources["cards"].schedule == SchedulePlan()
        berlin = replace(CARDS, schedule=Schedule("hourly", "06:30", "Europe/Berlin"))
        found = resolve(specs_of(sources=(berlin,))).views["spend"].source.schedule
        assert found == SchedulePlan(is_hourly=True, at=time(6, 30), timezone="Europe/Berlin")

    def test_zero_lateness_and_skew_are_fine(self) -> None:
        resolve(specs_of(sources=(replace(CARDS, allowed_lateness="0s", clock_skew="0ms"),)))

    def test_the_dead_letters_of_one_source_are_no_events_of_another(self) -> None:
        first = replace(CARDS, stream=StreamSource("cards"))
        second = replace(CARDS, name="others", stream=StreamSource("cards.dlq"))
        found = the_fault(specs_of(sources=(first, second)))
        assert "the topic 'cards.dlq' holds the dead letters of source 'cards'" in found


class TestEntities:
    @pytest.mark.parametrize(
        "kind", ["float64", "decimal(3,1)", "bool", "timestamp", "date", "bytes"]
    )
    def test_keys_are_integers_or_strings(self, kind: str) -> None:
        entity = replace(CUSTOMER, type=kind)
        source = replace(CARDS, columns={**COLUMNS, "customer_id": kind})
        found = the_fault(specs_of(sources=(source,), entities=(entity,)))
        assert f"a key of type {kind} | keys are int32, int64 or string" in found

    def test_the_join_key_is_a_column_of_the_source(self) -> None:
        found = the_fault(specs_of(entities=(replace(CUSTOMER, join_key="custom_id"),)))
        assert (
            "source 'cards' has no column 'custom_id', the join key of entity 'customer'" in found
        )
        assert "'customer_id'" in found

    def test_the_join_key_has_one_type(self) -> None:
        found = the_fault(specs_of(entities=(replace(CUSTOMER, type="string"),)))
        assert "the join key 'customer_id' is int64 in source 'cards' and string in entity" in found

    def test_an_unknown_entity_is_named_with_the_nearest(self) -> None:
        found = fault_of_view(entities=("custmer",))
        assert "there is no entity 'custmer' | did you mean 'customer'" in found

    def test_an_entity_stands_once_in_a_key(self) -> None:
        assert "stands twice in the key" in fault_of_view(entities=("customer", "customer"))

    def test_two_entities_of_one_column_make_no_key(self) -> None:
        twin = Entity("payer", "customer_id", "int64")
        view = replace(VIEW, entities=("customer", "payer"))
        found = the_fault(specs_of(view, entities=(CUSTOMER, twin)))
        assert "the entities 'customer' and 'payer' have one join key, 'customer_id'" in found

    def test_a_view_needs_an_entity(self) -> None:
        assert "view 'spend' names no entity" in fault_of_view(entities=())


class TestViews:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"source": "crds"}, "there is no source 'crds' | did you mean 'cards'"),
            ({"start": "April"}, "start: 'April' is no day | write YYYY-MM-DD"),
            ({"start": "2018-02-30"}, "start: '2018-02-30' is no day"),
            ({"features": ()}, "view 'spend' has no features"),
            ({"filter": "amount"}, "filter is a decimal(12,2), not a condition | compare it"),
            ({"filter": "amout > 0"}, "amout"),
            ({"filter": "amount >"}, "filter: "),
            ({"ttl": "0s"}, "ttl is 0s | ttl must be above 0"),
            ({"freshness": "now"}, "freshness: 'now' is not a duration"),
            ({"checks": (Check("null_rate", {"feature": "tx_1d"}),)}, "names 'tx_1d', which is no feature of 'spend' | did you mean 'tx_1h'"),
            ({"checks": (Check("Null rate", {}),)}, "there is no check of the type 'Null rate' | did you mean 'null_rate'?"),
        ],
    )  # fmt: skip
    def test_each_rule_of_views(self, changes: dict[str, Any], said: str) -> None:
        assert said in fault_of_view(**changes)

    def test_a_view_does_not_read_a_view(self) -> None:
        other = replace(VIEW, name="other", source="spend")
        found = the_fault(specs_of(VIEW, other))
        assert "view 'other' reads the feature view 'spend' | a view reads a source" in found
        assert "cycle" not in found

    def test_views_that_read_one_another_are_called_a_cycle(self) -> None:
        one, two = replace(VIEW, name="a", source="b"), replace(VIEW, name="b", source="a")
        assert "which is a cycle: a -> b -> a" in whats_of(specs_of(one, two))[0]

    def test_a_cycle_elsewhere_does_not_hang(self) -> None:
        views = [replace(VIEW, name=n, source=s) for n, s in (("a", "b"), ("b", "c"), ("c", "b"))]
        assert "cycle" not in whats_of(specs_of(*views))[0]


class TestFeatures:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"column": "amout"}, "the source has no column 'amout' | did you mean 'amount'"),
            ({"column": None}, "sum of what? | name a column: or an expr:"),
            ({"expr": "fee"}, "feature 'x' has column and expr | keep one"),
            ({"column": None, "expr": "amout + 1"}, "amout"),
            ({"column": "terminal_id"}, "sum of a string has no meaning | string works with count, min, max, first, last"),
            ({"column": "is_fraud"}, "sum of a bool has no meaning | expr: CASE WHEN is_fraud THEN 1 ELSE 0 END"),
            ({"column": "ts", "aggregate": "avg"}, "avg of a timestamp has no meaning"),
            ({"aggregate": "media"}, "there is no aggregate 'media'"),
            ({"parameters": {"k": 1}}, "sum takes no k"),
            ({"aggregate": "distinct", "parameters": {"limit": 0}}, "limit is 0, outside 1 to 10000 | limit: where counting stops, 1 to 10000"),
            ({"aggregate": "distinct", "parameters": {"limit": 2.5}}, "limit is 2.5, not a whole number"),
        ],
    )  # fmt: skip
    def test_each_rule_of_inputs(self, changes: dict[str, Any], said: str) -> None:
        assert said in fault_of_feature(**changes)

    def test_count_takes_any_type_or_nothing(self) -> None:
        plan = plan_of_features(COUNT, Feature("b", "count", "1h", column="is_fraud"))
        assert [m.expression.text for m in plan.view("spend").measures] == ["is_fraud"]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"window": ""}, "feature 'x' has no window"),
            ({"window": "forever"}, "window: 'forever' is not a duration"),
            ({"window": "0s"}, "window is 0s | window must be above 0"),
            ({"window": "1500ms"}, "window 1500ms is not a whole number of seconds | the nearest are 1s and 2s"),
            ({"window": "999999d"}, "more than a hundred years"),
            ({"hop": "7m"}, "hop 7m does not cut the window 1h into whole tiles | a hop is a whole number of seconds that divides the window; the nearest valid are 400s and 450s"),
            ({"hop": "2h"}, "hop 2h does not cut the window 1h into whole tiles"),
            ({"hop": "500ms"}, "the nearest valid are 1s"),
            ({"hop": "0s"}, "hop is 0s | hop must be above 0"),
            ({"window": "lifetime", "hop": "1500ms"}, "hop 1500ms is not a whole number of seconds | nearest: 1s and 2s"),
            ({"offset": "7m"}, "offset 7m is not a multiple of the hop 5m | the nearest valid are 5m and 10m"),
            ({"offset": "-1d"}, "offset: '-1d' is not a duration"),
        ],
    )  # fmt: skip
    def test_each_rule_of_windows(self, changes: dict[str, str], said: str) -> None:
        assert said in fault_of_feature(**changes)

    def test_a_hop_may_be_the_window_itself(self) -> None:
        plan = plan_of_features(replace(COUNT, hop="1h"))
        assert plan.view("spend").features[0].window == Sliding(H, H)

    @pytest.mark.parametrize(
        ("length_ms", "hop_ms", "expected"),
        [(H, 7 * 60_000, [400_000, 450_000]), (H, 2 * H, [H]), (1_000, 500, [1_000])],
    )
    def test_nearest_hops(self, length_ms: int, hop_ms: int, expected: list[int]) -> None:
        assert nearest_hops_ms(length_ms, hop_ms) == expected

    def test_a_doubtful_column_is_one_fault_and_not_one_for_each_use(self) -> None:
        source = replace(CARDS, columns={**COLUMNS, "amount": "money"})
        features = (
            Feature("a", "sum", "1h", column="amount"),
            Feature("b", "sum", "1h", expr="amount + 1"),
        )
        view = replace(VIEW, features=features, filter="amount > 0")
        assert "'money' is not a type" in the_fault(specs_of(view, sources=(source,)))


class TestServices:
    def plan(self, *entries: str) -> tuple[tuple[str, str], ...]:
        other = replace(VIEW, name="risk", features=(COUNT, Feature("fraud_1d", "count", "1d")))
        services = (FeatureService("s", entries),)
        return resolve(specs_of(VIEW, other, services=services)).services["s"].features

    def fault(self, *entries: str) -> str:
        other = replace(VIEW, name="risk", features=(COUNT, Feature("fraud_1d", "count", "1d")))
        return the_fault(specs_of(VIEW, other, services=(FeatureService("s", entries),)))

    def test_entries_are_named_in_three_ways(self) -> None:
        assert self.plan("risk:*", "spend:tx_1h", "fraud_1d") == (
            ("risk", "tx_1h"), ("risk", "fraud_1d"), ("spend", "tx_1h")
        )  # fmt: skip

    def test_a_bare_name_is_enough_where_it_is_unique(self) -> None:
        assert self.plan("fraud_1d") == (("risk", "fraud_1d"),)

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ("tx_1h", "'tx_1h' is a feature of 2 views | write spend:tx_1h or risk:tx_1h"),
            ("fraud_1h", "no view has a feature 'fraud_1h' | did you mean 'fraud_1d'"),
            ("rsk:tx_1h", "there is no view 'rsk' | did you mean 'risk'"),
            ("risk:tx_2h", "view 'risk' has no feature 'tx_2h' | did you mean 'tx_1h'"),
            ("risk", "'risk' is a view, not a feature | all its features are risk:*"),
        ],
    )
    def test_each_rule_of_entries(self, entry: str, said: str) -> None:
        assert said in self.fault(entry)

    def test_a_service_needs_features(self) -> None:
        assert "service 's' has no features" in self.fault()

    def test_a_service_does_not_name_a_service(self) -> None:
        services = (FeatureService("a", ("b",)), FeatureService("b", ("tx_1h",)))
        found = the_fault(specs_of(services=services))
        assert "service 'a' names the service 'b' | a service lists features of views" in found

    def test_services_that_name_one_another_are_called_a_cycle(self) -> None:
        services = (
            FeatureService("a", ("service:b",)), FeatureService("b", ("c",)), FeatureService("c", ("a",))
        )  # fmt: skip
        found = whats_of(specs_of(services=services))
        assert "service 'a' names the service 'b', which is a cycle: a -> b -> c -> a" in found[0]
        assert len(found) == 3

    def test_many_candidates_are_cut_short(self) -> None:
        views = [replace(VIEW, name=f"v{n}") for n in range(8)]
        found = the_fault(specs_of(*views, services=(FeatureService("s", ("tx_1h",)),)))
        assert found.endswith("v5:tx_1h, …")


class TestWarnings:
    def warnings(self, *features: Feature, source: Source = CARDS, **changes: Any) -> str:
        view = replace(VIEW, features=features or (COUNT,), **changes)
        return "\n".join(resolve(specs_of(view, sources=(source,))).view("spend").warnings)

    def test_a_plain_view_has_none(self) -> None:
        assert self.warnings() == ""

    def test_without_an_event_id_nothing_is_deduplicated(self) -> None:
        said = self.warnings(source=replace(CARDS, event_id=None))
        assert "cards names no event_id: nothing is deduplicated" in said

    def test_a_lifetime_reads_all_history(self) -> None:
        assert "every read of history goes back to the start, 2018-04-01" in self.warnings(
            Feature("ever", "count", "lifetime")
        )

    def test_lateness_beyond_a_window(self) -> None:
        said = self.warnings(Feature("brief", "count", "10m"))
        assert "events may come 1h late, after they have left the window of brief" in said

    def test_only_a_few_names_are_shown(self) -> None:
        features = [Feature(f"f{n}", "count", "10m") for n in range(5)]
        assert "of f0, f1, f2 and 2 more:" in self.warnings(*features)

    def test_very_many_tiles(self) -> None:
        said = self.warnings(Feature("fine", "count", "30d", hop="1m"))
        assert "fine: 43,200 tiles of 1m in a window of 30d" in said

    def test_tiles_of_a_second(self) -> None:
        assert "tiles are of 1s" in self.warnings(Feature("brief", "count", "1h", hop="1s"))

    def test_hops_that_do_not_divide_one_another(self) -> None:
        said = self.warnings(
            Feature("a", "count", "1h", hop="20m"), Feature("b", "count", "1h", hop="15m")
        )
        assert "tiles are of 5m, finer than the finest hop 15m" in said

    def test_freshness_without_a_stream(self) -> None:
        assert "has no stream to keep it" in self.warnings(freshness="1m")

    def test_an_hourly_refresh_of_days_that_stay_open_for_long(self) -> None:
        source = replace(CARDS, schedule=Schedule("hourly"), allowed_lateness="50h")
        assert "its hourly refresh builds 52 hours anew each hour" in self.warnings(source=source)
        assert "hourly" not in self.warnings(source=replace(source, allowed_lateness="1d"))

    def test_an_ingest_time_without_files(self) -> None:
        source = replace(CARDS, batch=None, stream=StreamSource("t"), ingest_time="arrived")
        assert "ingest_time of source cards is unused" in self.warnings(source=source)


def test_what_flink_lacks_is_said_of_a_view_that_follows_a_stream() -> None:
    cards = replace(CARDS, columns={**COLUMNS, "payload": "bytes"}, stream=StreamSource("cards"))
    most = Feature("most_1h", "max", "1h", column="payload")
    live = replace(VIEW, features=(COUNT, most))
    assert the_fault(specs_of(live, sources=(cards,))) == (
        "declaration: feature 'most_1h': Flink has no max of bytes, and view 'spend' follows a "
        "stream: it cannot compare them | declare the column as string; or `online: false`, and the "
        "view is built and never live"
    )
    assert resolve(specs_of(replace(live, online=False), sources=(cards,)))
    assert resolve(specs_of(live, sources=(replace(cards, stream=None),)))
