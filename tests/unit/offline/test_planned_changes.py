"""What ``plan`` says of a declaration that has changed under tables that are there."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from cli.main import main
from millrace.days import Days
from millrace.errors import DataError, PlanError
from millrace.plan import Column, SourcePlan, ViewPlan
from millrace.resolve import resolve
from millrace.spec import BatchSource, Entity, Feature, FeatureView, Source, Specs
from millrace.types import parse_type
from offline.tables.history import find_history
from offline.tables.partition_log import append_partition_log
from offline.tables.planned_changes import planned_change, refuse_backfill
from offline.tables.source_changes import find_change, record_definition
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.settings import Settings, settings_from_env

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
COLUMNS = {"at": "timestamp", "who": "int64", "amount": "decimal(12,2)", "note": "string"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(
        settings_from_env({"MILLRACE_HOME": str(tmp_path), "MILLRACE_CACHE": str(tmp_path)}),
        lake=str(tmp_path / "lake"),
    )


def view_of(columns: Mapping[str, str], **changes: Any) -> ViewPlan:
    source = Source("s", columns, "at", batch=BatchSource("csv", "s"), **changes)
    total = Feature("total", "sum", column="amount", window="1d")
    view = FeatureView("v", ("buyer",), "s", "2024-03-01", (total,))
    entity = Entity("buyer", "who", columns["who"])
    return resolve(Specs((source,), (entity,), (view,))).views["v"]


def lay_out(settings: Settings, view: ViewPlan, *, offset: int | None = None) -> None:
    """Leave a lake as builds of two days do: an event a day, a version, the log."""
    instants = [1_709_251_200_000 + 1, 1_709_337_600_000 + 1]
    has_vectors = any(c.type.kind == "vector" for c in view.source.columns)
    table = {
        "at": pa.array([ms * 1000 for ms in instants], pa.timestamp("us", tz="UTC")),
        "who": pa.array([5, 3_000_000_000], pa.int64()),
        "amount": pa.array([Decimal("1.25"), Decimal("99999.50")], pa.decimal128(12, 2)),
        "note": pa.array(["a", None]),
        **({"taste": pa.array([[1, 2], None], pa.list_(pa.float32()))} if has_vectors else {}),
        "_event_ms": pa.array(instants, pa.int64()),
        "_ingest_ms": pa.array(instants, pa.int64()),
        "_partition": pa.array([None, None if offset is None else 0], pa.int32()),
        "_offset": pa.array([None, offset], pa.int64()),
        "event_date": pa.array(DAYS, pa.date32()),
    }
    write_deltalake(f"{settings.lake}/events/s", pa.table(table), partition_by=["event_date"])
    record_definition(settings, view.source)
    version = claim_version(settings, view)
    outcomes = tuple(PartitionOutcome(day, rows=1) for day in DAYS)
    for name, fingerprint in (
        ("events/s", view.source.fingerprint),
        (f"features/v/{version}", view.fingerprint),
    ):
        append_partition_log(settings, BuildReport(name, None, 0, outcomes), fingerprint)


def test_a_lake_that_is_as_declared_has_nothing_to_say(settings: Settings) -> None:
    assert planned_change(settings, view_of(COLUMNS)).lines() == []
    lay_out(settings, view_of(COLUMNS))
    assert planned_change(settings, view_of(COLUMNS)).lines() == []


def test_a_vector_of_another_length_is_another_type_though_tables_do_not_tell(
    settings: Settings,
) -> None:
    short, longer = {**COLUMNS, "taste": "vector(2)"}, {**COLUMNS, "taste": "vector(3)"}
    lay_out(settings, view_of(short))
    assert planned_change(settings, view_of(short)).lines() == []
    (moved,) = find_change(settings, view_of(longer).source).moved
    assert [str(column.type) for column in moved] == ["vector(2)", "vector(3)"]
    with pytest.raises(PlanError, match="cannot become"):
        refuse_backfill(settings, view_of(longer).source, Days(DAYS[1], date(2024, 3, 3)))
    # Nor where it was declared no more meanwhile.
    record_definition(settings, view_of(COLUMNS).source)
    (moved,) = find_change(settings, view_of(longer).source).moved
    assert str(moved[0].type) == "vector(2)"


def test_what_is_rebuilt_is_told_with_the_reason_and_the_command(settings: Settings) -> None:
    lay_out(settings, view_of(COLUMNS))
    wider = {**COLUMNS, "amount": "decimal(14,2)", "shop": "string"}
    del wider["note"]
    span = "2 day(s) of [2024-03-01, 2024-03-03)"
    assert planned_change(settings, view_of(wider, event_id="shop")).lines() == [
        "events/s: amount decimal(12,2) becomes decimal(14,2)",
        "events/s: shop string is new: events of before have none",
        "events/s: note string is declared no more: old values stay",
        "events/s: event_id becomes shop, it was none: archived events keep what was said of them",
        f"events/s: {span} built from another declaration, to be built again",
        f"v1 is of another definition and stays: {span} to be built of a new version",
        "millrace backfill v --start 2024-03-01 --end 2024-03-03",
    ]


@pytest.mark.parametrize(
    ("name", "type_", "refused"),
    [
        ("who", "int32", True),  # 3,000,000,000
        ("amount", "decimal(7,2)", False),  # 99999.50
        ("amount", "decimal(6,2)", True),
        ("amount", "float64", False),  # what is between is tried value by value
        ("amount", "bool", True),
        ("note", "timestamp", True),
        ("note", "int64", False),
        ("who", "string", False),
    ],
)
def test_the_log_decides_what_has_no_place(
    settings: Settings, name: str, type_: str, *, refused: bool
) -> None:
    lay_out(settings, view_of(COLUMNS))
    after = {**COLUMNS, name: type_}
    if type_ == "bool":  # nothing adds it up
        after["total"], after["amount"] = "float64", "bool"
    source = Source("s", after, "at", batch=BatchSource("csv", "s"))
    view = FeatureView("v", ("buyer",), "s", "2024-03-01", (Feature("n", "count", "1d"),))
    entity = Entity("buyer", "who", after["who"])
    found = planned_change(
        settings, resolve(Specs((source,), (entity,), (view,))).views["v"]
    ).refused
    assert (found is not None) == refused
    if found is not None:
        assert f"keep `{name}: {COLUMNS[name]}`" in found.fix


def test_days_that_are_built_anew_need_no_place_unless_they_were_archived(
    settings: Settings,
) -> None:
    lay_out(settings, view_of(COLUMNS))
    narrow = view_of({**COLUMNS, "who": "int32"}).source
    refuse_backfill(settings, narrow, Days(DAYS[1], date(2024, 3, 3)))
    with pytest.raises(PlanError, match="of 2024-03-02 cannot become int32"):
        refuse_backfill(settings, narrow, Days(DAYS[0], DAYS[1]))


def test_archived_events_keep_their_place_and_their_event_time(settings: Settings) -> None:
    lay_out(settings, view_of(COLUMNS), offset=0)
    both = Days(DAYS[0], date(2024, 3, 3))
    with pytest.raises(PlanError, match="cannot become int32"):
        refuse_backfill(settings, view_of({**COLUMNS, "who": "int32"}).source, both)
    moved = replace(view_of({**COLUMNS, "paid": "timestamp"}).source, event_time="paid")
    with pytest.raises(PlanError, match=r"1 archived event\(s\) were classified by the former"):
        refuse_backfill(settings, moved, both)


def source_of(columns: Mapping[str, Any]) -> SourcePlan:
    source = view_of(COLUMNS).source
    made = [
        Column(name, parse_type(of[0]), of[1])
        if isinstance(of, tuple)
        else Column(name, parse_type(of))
        for name, of in columns.items()
    ]
    return replace(source, columns=tuple(made))


def test_values_follow_the_field_that_they_were_read_from(settings: Settings) -> None:
    lay_out(settings, view_of(COLUMNS), offset=0)
    renamed = {"at": "timestamp", "who": "int64", "sum": ("decimal(12,2)", "amount")}
    found = find_change(settings, source_of({**renamed, "note": "string"}))
    assert [(was.name, now.name) for was, now in found.moved] == [("amount", "sum")]
    assert (found.added, found.dropped) == ((), ())

    # The former name goes on as another field; two columns of one type change places.
    reused = find_change(settings, source_of({**renamed, "amount": ("decimal(12,2)", "gross")}))
    assert [(was.name, now.name) for was, now in reused.moved] == [("amount", "sum")]
    assert [c.name for c in reused.added] == ["amount"]
    swapped = source_of({**COLUMNS, "note": ("string", "memo"), "memo": ("string", "note")})
    assert [(w.name, n.name) for w, n in find_change(settings, swapped).moved] == [("note", "memo")]

    # No stored column was read from it: what archived events hold is another field's.
    other = source_of({**COLUMNS, "note": ("string", "memo")})
    assert find_change(settings, other).reread[0][1] == "note"
    with pytest.raises(PlanError, match=r"read from 'memo' now, and 1 archived event\(s\) hold"):
        refuse_backfill(settings, other, Days(DAYS[0], date(2024, 3, 3)))


def test_a_training_set_does_not_read_columns_that_are_still_to_come(settings: Settings) -> None:
    lay_out(settings, view_of(COLUMNS))
    queries = pa.array([1_709_337_600_000], pa.int64())
    with pytest.raises(DataError, match=r"without amount decimal\(14,2\)") as told:
        find_history(settings, view_of({**COLUMNS, "amount": "decimal(14,2)"}), queries)
    assert told.value.fix.startswith("millrace backfill v --start 2024-03-01")
    assert find_history(settings, view_of({**COLUMNS, "shop": "string"}), queries).rows == 1


def test_plan_ends_with_1_where_it_refuses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(settings, view_of(COLUMNS))
    folder = settings.home / "views"
    folder.mkdir()
    narrow = ", ".join(f"{n}: '{t}'" for n, t in {**COLUMNS, "who": "int32"}.items())
    (folder / "v.yaml").write_text(
        "version: millrace/v1\n"
        f"sources: [{{name: s, columns: {{{narrow}}}, event_time: at,"
        " batch: {format: csv, path: s}}]\n"
        "entities: [{name: buyer, join_key: who, type: int32}]\n"
        "feature_views: [{name: v, entity: buyer, source: s, start: 2024-03-01,"
        " features: [{name: n, aggregate: count, window: 1d}]}]\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("MILLRACE_HOME", str(settings.home))
    monkeypatch.setenv("MILLRACE_LAKE", settings.lake)
    monkeypatch.setenv("MILLRACE_VIEWS", str(folder))
    monkeypatch.setattr(sys, "argv", ["millrace", "plan", "v", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    (view,) = json.loads(capsys.readouterr().out)["views"]
    assert "int32" in view["change"]["refused"]
    assert view["change"]["command"] == "millrace backfill v --start 2024-03-01 --end 2024-03-03"
