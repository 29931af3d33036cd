"""The serving plan, lineage and checks of a view; and what the command prints."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.compiling import register
from millrace.aggregates import Edge
from millrace.codec import Packed
from millrace.compile.checks import check_rules, source_rules
from millrace.compile.lineage import lineage
from millrace.compile.serving import codec_of, serving_plan
from millrace.errors import CompileError, NotDeclared, StoreError
from millrace.plan import Column
from millrace.spec import Check
from millrace.types import FLOAT64
from tests.golden.rewrite import GOLDEN, golden_plan

VIEWS = golden_plan().views
VIEW = VIEWS["every_aggregate"]


def published() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(serving_plan(VIEW)))
    return document


def test_a_published_plan_is_enough_to_read_rows_and_tiles() -> None:
    document = published()
    rows, tiles = codec_of(document, "row"), codec_of(document, "tile")
    names = [slot.name for slot in tiles.slots]
    over = [f"{f.name}@over" for f in VIEW.features if f.aggregate.name in {"top_k", "mode"}]
    hidden = [*over, "@as_of"]
    assert [slot.name for slot in rows.slots] == [*(f.name for f in VIEW.features), *hidden]
    values = dict.fromkeys(names) | {
        "rows": 3,
        "m0_last": Edge(5, 6, 7, "web"),
        "m1_sum": Decimal("12.50"),
    }
    packed = Packed(tuple(values[name] for name in names), event_ms=5)
    assert tiles.decode(tiles.encode(packed)) == packed


def test_a_row_keeps_the_newest_event_of_a_window_in_the_past() -> None:
    names = [slot["name"] for slot in serving_plan(VIEWS["pair_filtered"])["slots"]["row"]]
    assert names == ["big_1d", "frauds_7d_ago", "payments_10s", "frauds_7d_ago@ts", "@as_of"]


def test_features_name_the_tile_columns_they_are_merged_from() -> None:
    merged = {f["name"]: (f["merged_from"], f["empty"]) for f in published()["features"]}
    assert merged["payments_1h"] == (["rows"], 0)
    assert merged["amount_sum_1d"] == (["m1_count", "m1_sum"], None)
    assert merged["amount_variance_7d"] == (["m1_count", "m1_mean", "m1_m2"], None)
    assert merged["last_channel_7d"] == (["m0_last"], None)


@pytest.mark.parametrize("change", [{"document": "millrace/serving/v9"}, {"codec": 2}])
def test_a_plan_of_another_version_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError) as caught:
        codec_of({**published(), **change}, "row")
    assert caught.value.where == "serving plan of every_aggregate"
    assert "publish the view again" in caught.value.fix


def test_every_feature_has_its_source_columns_and_their_transformation() -> None:
    fields = lineage(VIEWS["pair_filtered"])["column_lineage"]["fields"]
    (big,) = fields["big_1d"]["inputFields"]
    assert (big["name"], big["field"]) == ("events/card_payments", "amount")
    (transformation,) = big["transformations"]
    assert (transformation["type"], transformation["subtype"]) == ("DIRECT", "AGGREGATION")
    assert transformation["description"].endswith("over 1d by 1h")
    assert fields["payments_10s"]["inputFields"] == []
    ago = fields["frauds_7d_ago"]["inputFields"][0]["transformations"][0]["description"]
    assert ago.endswith("over 28d by 1d, 7d ago")


def test_what_decides_which_events_count_is_indirect_lineage() -> None:
    deciding = lineage(VIEWS["pair_filtered"])["column_lineage"]["dataset"]
    assert [(d["field"], d["transformations"][0]["subtype"]) for d in deciding] == [
        ("customer_id", "GROUP_BY"),
        ("terminal_code", "GROUP_BY"),
        ("paid_at", "WINDOW"),
        ("amount", "FILTER"),
        ("is_fraud", "FILTER"),
        ("payment_id", "FILTER"),
    ]


def test_a_count_of_a_column_masks_it() -> None:
    fields = lineage(VIEW)["column_lineage"]["fields"]
    masks = {
        name: fields[name]["inputFields"][0]["transformations"][0]["masking"]
        for name in ("channels_1d", "last_channel_7d")
    }
    assert masks == {"channels_1d": True, "last_channel_7d": False}


def test_datasets_follow_the_flow() -> None:
    datasets = lineage(VIEW)["datasets"]
    assert [(d["name"], d["inputs"]) for d in datasets[2:]] == [
        ("events/payments", ["${MILLRACE_DATA}/payments.parquet", "payments"]),
        ("dead_letters/payments", ["${MILLRACE_DATA}/payments.parquet", "payments"]),
        ("tiles/every_aggregate", ["events/payments"]),
        ("features/every_aggregate", ["events/payments"]),
        ("online/every_aggregate", ["tiles/every_aggregate", "payments"]),
    ]


def test_every_table_has_column_lineage_of_the_columns_it_has() -> None:
    document = lineage(VIEW)
    fields = {
        d["name"]: [f["name"] for f in d["fields"]] for d in document["datasets"] if "fields" in d
    }
    found = {
        "features/every_aggregate": document["column_lineage"],
        **document["column_lineage_of"],
    }
    assert set(found["events/payments"]["fields"]) - set(fields["events/payments"]) == {
        "_event_ms",
        "_ingest_ms",
        "event_date",
    }
    assert list(found["online/every_aggregate"]["fields"]) == fields["online/every_aggregate"]
    assert set(found["tiles/every_aggregate"]["fields"]) == set(fields["tiles/every_aggregate"])
    read = {f["name"] for c in found["online/every_aggregate"]["fields"].values()
            for f in c["inputFields"]}  # fmt: skip
    assert read == {"tiles/every_aggregate"}
    merged = found["online/every_aggregate"]["fields"]["amount_avg_7d"]["inputFields"]
    assert [f["field"] for f in merged] == ["m1_count", "m1_sum"]


def with_checks(*checks: Check) -> list[str]:
    rules = check_rules(replace(VIEW, checks=checks))
    return [f"{rule.name} {dict(rule.arguments)} {rule.severity}" for rule in rules]


def test_every_view_has_default_rules() -> None:
    names = [rule.name for rule in check_rules(VIEWS["pair_filtered"])]
    assert names == [
        "rows",
        "volume",
        "completeness",
        "null_keys",
        "dead_letters",
        "uniqueness",
        "null_rate__big_1d",
        "frozen__big_1d",
        "drift__big_1d",
        "null_rate__frauds_7d_ago",
        "frozen__frauds_7d_ago",
        "drift__frauds_7d_ago",
        "null_rate__payments_10s",
        "range__payments_10s",
        "frozen__payments_10s",
        "drift__payments_10s",
    ]


def test_a_promise_of_freshness_is_a_rule() -> None:
    assert "freshness {'max_age_ms': 60000} error" in with_checks()


def test_a_declared_rule_takes_the_place_of_the_default() -> None:
    check = Check("drift", MappingProxyType({"feature": "payments_1h", "max": 0.5}))
    rules = with_checks(check)
    assert [r for r in rules if r.startswith("drift__payments_1h")] == [
        "drift__payments_1h {'max': 0.5} error"
    ]
    assert rules[-1].startswith("drift__payments_1h")


def test_rules_of_columns_that_are_called_like_rules_of_others_have_names_of_their_own() -> None:
    columns = tuple(Column(name, FLOAT64) for name in ("a", "a__mean", "a__mean__psi"))
    source = replace(VIEW.source, columns=(*VIEW.source.columns, *columns))
    names = [rule.name for rule in source_rules(source, ())]
    assert len(names) == len(set(names))
    assert {"drift__a", "drift__a__mean", "drift__a__mean__psi", "drift__a__mean__mean"} < set(
        names
    )


def test_a_rule_declared_twice_is_refused() -> None:
    check = Check("range", MappingProxyType({"feature": "payments_1h", "min": 0}))
    with pytest.raises(CompileError) as caught:
        with_checks(check, check)
    assert "the check 'range' is declared twice for payments_1h" in caught.value.what


def test_an_unknown_severity_is_refused() -> None:
    check = Check("rows", MappingProxyType({"min": 1, "severity": "fatal"}))
    with pytest.raises(CompileError) as caught:
        with_checks(check)
    assert "severity 'fatal'" in caught.value.what


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("MILLRACE_VIEWS", str(GOLDEN / "views"))
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


@pytest.mark.parametrize(
    ("target", "suffix"),
    [
        ("spark", "sql"),
        ("flink", "sql"),
        ("serving", "json"),
        ("lineage", "json"),
        ("checks", "json"),
        ("expectations", "json"),
    ],
)
def test_the_command_prints_the_artifact(app: typer.Typer, target: str, suffix: str) -> None:
    result = CliRunner().invoke(app, ["compile", "every_aggregate", "--target", target])
    golden: Path = GOLDEN / target / f"every_aggregate.{suffix}"
    assert (result.exit_code, result.stdout) == (0, golden.read_text(encoding="utf-8"))


def test_the_command_speaks_json(app: typer.Typer) -> None:
    told = {}
    for target in ("spark", "serving"):
        arguments = ["compile", "every_aggregate", "--target", target, "--json"]
        told[target] = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert told["spark"]["spark"].startswith("-- measures\nSELECT")
    assert told["serving"]["serving"]["view"] == "every_aggregate"
    assert told["serving"]["fingerprint"] == VIEW.fingerprint


def test_an_unknown_view_names_the_nearest(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["compile", "every_agregate", "--target", "spark"])
    assert isinstance(result.exception, NotDeclared)
    assert "'every_aggregate'" in result.exception.fix


def test_an_unknown_target_is_wrong_usage(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["compile", "every_aggregate", "--target", "duckdb"])
    assert result.exit_code == 2
