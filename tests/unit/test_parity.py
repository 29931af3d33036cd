"""Parity against a server that answers as it is told: what it finds, and what it excuses."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import typer
from deltalake import write_deltalake
from typer.testing import CliRunner

from checks.parity import parity_check, parity_checks
from checks.recomputing import REORDERED_MS, missing_sets
from checks.served_parity import ParityReport, check_parity
from cli.parity import register
from millrace.errors import DataError, EngineRejected, EngineUnavailable
from resources.declarations import plan_of
from resources.endpoints import FILE_NAME, start_mark
from resources.partition_log import append_partition_log
from resources.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env
from resources.versions import claim_version
from tests import reference
from tests.background_server import in_background

DAY = datetime(2024, 3, 10, tzinfo=UTC)
DAY_MS = int(DAY.timestamp() * 1000)
AS_OF_MS = DAY_MS + 50_000_000
EVENTS = 400

VIEW = """
version: millrace/v1
sources:
  - name: sales
    columns: {id: int64, at: timestamp, who: string, price: "decimal(10,2)", weight: float64}
    event_time: at
    event_id: id
    batch: {format: parquet, path: "nowhere.parquet"}
entities: [{name: buyer, join_key: who, type: string}]
feature_views:
  - name: buying
    entity: buyer
    source: sales
    start: 2024-03-01
    features:
      - {name: sales_1h, aggregate: count, window: 1h}
      - {name: sales_1d_before, aggregate: count, window: 1d, offset: 1h}
      - {name: price_sum_1d, aggregate: sum, column: price, window: 1d}
      - {name: weight_avg_1d, aggregate: avg, column: weight, window: 1d}
      - {name: price_last, aggregate: last, column: price, window: 7d}
"""
HOUR = 3_600_000
FEATURES = {
    "sales_1h": ("count_rows", HOUR, 300_000, 0, "price"),
    "sales_1d_before": ("count_rows", 24 * HOUR, HOUR, HOUR, "price"),
    "price_sum_1d": ("sum", 24 * HOUR, HOUR, 0, "price"),
    "weight_avg_1d": ("avg", 24 * HOUR, HOUR, 0, "weight"),
    "price_last": ("last", 168 * HOUR, HOUR * 12, 0, "price"),
}


def sales() -> list[dict[str, Any]]:
    """Events of seven buyers, 40 s apart, and at the end three within a second of the answer."""
    rows: list[dict[str, Any]] = [
        {"id": i, "_event_ms": AS_OF_MS - 60_000 - (EVENTS - i) * 400_000, "who": f"w{i % 7}"}
        for i in range(EVENTS)
    ]
    for i, before_ms in enumerate((900, 100, 50)):
        rows.append({"id": EVENTS + i, "_event_ms": AS_OF_MS - before_ms, "who": "w0"})
    return [
        {
            **row,
            "_ingest_ms": row["_event_ms"],
            "price": Decimal(row["id"] * 7 % 100_000) / 100,
            "weight": row["id"] / 7,
        }
        for row in rows
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Settings:
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path), "HOME": str(tmp_path)})
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "sales.yaml").write_text(VIEW)
    rows = sales()
    days = [r["_event_ms"] // 86_400_000 for r in rows]
    table = pa.table(
        {
            "id": pa.array([r["id"] for r in rows], pa.int64()),
            "at": pa.array([r["_event_ms"] * 1000 for r in rows], pa.timestamp("us", "UTC")),
            "who": pa.array([r["who"] for r in rows]),
            "price": pa.array([r["price"] for r in rows], pa.decimal128(10, 2)),
            "weight": pa.array([r["weight"] for r in rows]),
            "_event_ms": pa.array([r["_event_ms"] for r in rows], pa.int64()),
            "_ingest_ms": pa.array([r["_ingest_ms"] for r in rows], pa.int64()),
            "event_date": pa.array(days, pa.int32()).cast(pa.date32()),
        }
    )
    write_deltalake(f"{settings.lake}/events/sales", table, partition_by=["event_date"])
    settings = replace(settings, views=(tmp_path / "views",))
    claim_version(settings, plan_of(settings.views).view("buying"))
    return settings


Spoil = Callable[[str, str, Any], Any]


class Server:
    """The online API as it would be over some events; ``spoil`` changes single values."""

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self.spoil: Spoil = lambda _key, _name, value: value
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.asked: list[dict[str, Any]] = []

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        rows = [row for row in sales() if row["id"] not in self.missing]
        return {
            "entity_name": body["entity_name"],
            "as_of": iso(AS_OF_MS),
            "results": [self._one(key, body["features"], rows) for key in body["keys"]],
        }

    def _one(self, key: str, asked: list[dict[str, str]], rows: Any) -> dict[str, Any]:
        features = {}
        for one in asked:
            name = one["name"].removeprefix("buying:")
            aggregate, length, hop, offset, column = FEATURES[name]
            type_ = "decimal(10,2)" if column == "price" else "float64"
            feature = reference.Feature(aggregate, length, hop, offset, type_)
            events = [
                reference.Event(r["who"], r["_event_ms"], r["_ingest_ms"], r[column], r["id"])
                for r in rows
            ]
            start, end = reference.bounds(feature, AS_OF_MS)
            value = reference.value(events, feature, key, AS_OF_MS)
            times = [
                e.event_ms
                for e in events
                if e.key == key and e.event_ms is not None and (start or 0) <= e.event_ms < end
            ]
            features[one["name"]] = {
                "value": self.spoil(key, name, value),
                "ts": iso(max(times)) if times else None,
                "version": one["version"],
                "status": "PRESENT",
            }
        return {"key": key, "features": features, "status": "OK"}


def iso(at_ms: int) -> str:
    text = datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


@pytest.fixture
def server(lake: Settings) -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = told.refuse or (200, told.answer(body))
            text = json.dumps(answer, default=str).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    entry = {
        "url": f"http://127.0.0.1:{http.server_port}",
        "pid": os.getpid(),
        "started": start_mark(os.getpid()),
    }
    (lake.home / FILE_NAME).write_text(json.dumps({"server": entry}))
    with in_background(http):
        yield told


def audit(lake: Settings, **options: Any) -> ParityReport:
    return check_parity(lake, plan_of(lake.views), "buying", lambda _: None, seed=1, **options)


def test_right_answers_are_equal_for_recent_older_and_unknown_entities(
    lake: Settings, server: Server
) -> None:
    report = audit(lake)
    assert report.is_equal
    assert report.values == sum(report.samples.values()) * 5
    assert report.samples["recent"] == 7
    assert report.samples["unknown"] == 10
    assert report.in_flight.events == 0
    assert {one["version"] for body in server.asked for one in body["features"]} == {"v1"}


def test_each_wrong_value_is_told_by_feature_and_entity(lake: Settings, server: Server) -> None:
    server.spoil = lambda key, name, value: (
        value + Decimal("0.01") if (key, name) == ("w3", "price_sum_1d") else value
    )
    report = audit(lake)
    assert (report.is_equal, report.differing) == (False, 1)
    (found,) = report.as_json()["differences"]
    assert (found["feature"], found["key"], found["what"]) == ("price_sum_1d", "w3", "value")
    assert Decimal(found["served"]) - Decimal(found["recomputed"]) == Decimal("0.01")


def test_doubles_may_differ_by_a_billionth_and_no_more(lake: Settings, server: Server) -> None:
    def off_by(share: float) -> Spoil:
        return lambda _, name, value: (
            value * (1 + share) if name == "weight_avg_1d" and value is not None else value
        )

    server.spoil = off_by(5e-10)
    assert audit(lake).is_equal
    server.spoil = off_by(5e-9)
    assert audit(lake).by_feature == {"weight_avg_1d": 7}


def test_newest_events_may_be_missing_and_their_age_is_the_lag(
    lake: Settings, server: Server
) -> None:
    server.missing = {EVENTS + 1, EVENTS + 2}
    report = audit(lake)
    assert report.is_equal
    assert (report.in_flight.answers, report.in_flight.events) == (1, 2)
    assert report.in_flight.lag_ms == 100


def test_neighbours_may_be_read_in_either_order(lake: Settings, server: Server) -> None:
    server.missing = {EVENTS + 1}  # 100 ms old, while one of 50 ms is there
    report = audit(lake)
    assert report.is_equal
    assert (report.in_flight.events, report.in_flight.lag_ms) == (1, 100)


def test_an_event_missing_behind_one_that_came_long_after_it_is_a_difference(
    lake: Settings, server: Server
) -> None:
    server.missing = {EVENTS}  # 900 ms old, while those of 100 and 50 ms are there
    assert not audit(lake).is_equal


def test_an_event_older_than_allowed_is_a_difference(lake: Settings, server: Server) -> None:
    server.missing = {EVENTS, EVENTS + 1, EVENTS + 2}
    assert audit(lake).is_equal
    report = audit(lake, in_flight_ms=500)
    assert not report.is_equal
    assert {d.key for d in report.differences} == {("w0",)}


def test_a_wrong_value_is_not_excused_by_events_in_flight(lake: Settings, server: Server) -> None:
    server.missing = {EVENTS + 2}
    server.spoil = lambda key, name, value: (
        value + 1 if (key, name) == ("w0", "sales_1h") else value
    )
    assert not audit(lake).is_equal


def test_refusal_of_the_server_is_told_in_its_words(lake: Settings, server: Server) -> None:
    told = {"code": "not_declared", "message": "no version 'v1'", "where": "buying", "fix": "v2"}
    server.refuse = (404, {"error": told})  # type: ignore[dict-item]
    with pytest.raises(EngineRejected, match=r"answered 404: no version 'v1'\n  fix: v2"):
        audit(lake)
    server.refuse = (503, {"error": {**told, "message": "store down"}})  # type: ignore[dict-item]
    with pytest.raises(EngineUnavailable, match="answered 503: store down"):
        audit(lake)


def test_view_that_was_never_built_is_told_so(lake: Settings, server: Server) -> None:
    text = VIEW.replace("window: 7d", "window: 8d")
    (lake.home / "views" / "sales.yaml").write_text(text)
    with pytest.raises(DataError, match="never built or deployed") as raised:
        audit(lake)
    assert "millrace stream deploy buying" in raised.value.fix
    assert server.asked == []


def command(lake: Settings, *options: str) -> tuple[int, str]:
    app = typer.Typer()
    register(app)
    env = {"MILLRACE_HOME": str(lake.home), "MILLRACE_VIEWS": str(lake.views[0])}
    done = CliRunner().invoke(app, ["buying", "--seed", "1", *options], env=env)
    return done.exit_code, done.stdout


def test_command_says_equal_and_ends_with_0(lake: Settings, server: Server) -> None:
    code, told = command(lake, "--samples", "20")
    assert code == 0
    assert "40 values of buying's 5 features compared (7 recent, 1 unknown)" in told
    assert "0 event(s) missing from 0 answer(s)" in told
    assert "equal: 0 values differ" in told


def test_command_lists_differences_and_ends_with_1(lake: Settings, server: Server) -> None:
    server.spoil = lambda _, name, value: value + 3 if name == "sales_1h" else value
    code, told = command(lake, "--samples", "20")
    assert code == 1
    assert "sales_1h: 8 differ" in told
    code, told = command(lake, "--samples", "20", "--json")
    assert code == 1
    found = json.loads(told)
    assert (found["equal"], found["differing"]) == (False, 8)
    assert found["differences"][0]["served"] == found["differences"][0]["recomputed"] + 3


def test_days_that_have_events_and_no_tiles_are_named_where_values_differ(
    lake: Settings, server: Server
) -> None:
    view = plan_of(lake.views).view("buying")
    days = [date(2024, 3, 8), date(2024, 3, 9), date(2024, 3, 10)]
    for table, built, fingerprint in (
        ("events/sales", days, view.source.fingerprint),
        ("tiles/buying/v1", days[2:], view.fingerprint),
    ):
        outcomes = tuple(PartitionOutcome(day, rows=9) for day in built)
        append_partition_log(lake, BuildReport(table, None, 0, outcomes), fingerprint)
    assert audit(lake).hint is None, "nothing differs, so nothing is to be explained"
    server.spoil = lambda _, name, value: value + 3 if name == "sales_1h" else value
    report = audit(lake)
    assert report.as_json()["days_without_tiles"] == ["2024-03-08", "2024-03-09"]
    assert report.hint == (
        "2024-03-08..2024-03-09 have events and no tiles, so what is served lacks them: "
        "millrace backfill buying --start 2024-03-08 --end 2024-03-10, then millrace upload buying"
    )


def test_asset_check_passes_on_equal_answers_alone_and_says_why_it_cannot_judge(
    lake: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(lake.views)
    assert parity_checks(plan) == []  # nothing flows into a view without a stream
    monkeypatch.setenv("MILLRACE_HOME", str(lake.home))
    view = plan.view("buying")
    check = parity_check(plan, view)
    assert list(check.check_keys) == [dg.AssetCheckKey(dg.AssetKey(["online", "buying"]), "parity")]
    assert evaluated(check).passed
    server.spoil = lambda _, name, value: value + 3 if name == "sales_1h" else value
    found = evaluated(check)
    assert not found.passed
    assert found.metadata["differing"].value == 12
    server.refuse = (503, {"error": {"message": "store down"}})  # type: ignore[dict-item]
    found = evaluated(check)
    assert not found.passed
    assert "store down" in (found.description or "")


def evaluated(check: dg.AssetChecksDefinition) -> dg.AssetCheckEvaluation:
    job = dg.define_asset_job("audit", selection=dg.AssetSelection.checks(check))
    defs = dg.Definitions(
        assets=[dg.AssetSpec(["online", "buying"])], asset_checks=[check], jobs=[job]
    )
    done = defs.resolve_job_def("audit").execute_in_process()
    (found,) = done.get_asset_check_evaluations()
    return found


def test_sets_of_missing_events_never_lack_one_behind_a_much_later_one() -> None:
    arrivals = [5_000, 4_990, 4_900, 4_700, 4_400, 1_000]
    found = [set(s) for s in missing_sets(arrivals)]
    assert len(found) == len({frozenset(s) for s in found})
    for missing in found:
        oldest_ms = min(arrivals[i] for i in missing)
        there = [a for i, a in enumerate(arrivals) if i not in missing]
        assert all(at < oldest_ms + REORDERED_MS for at in there)
    assert {0, 1, 2, 3, 4, 5} in found
    assert {1, 2} in found
    assert {4} not in found
