"""Parity against a server that answers as it is told: what it finds, and what it excuses."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
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

from checks.parity.asset_check import parity_check, parity_checks
from checks.parity.audit import check_parity, is_equal
from checks.parity.history_served import cut_over_of, served_history
from checks.parity.known_entities import read_entities
from checks.parity.recomputing import REORDERED_MS, missing_sets
from checks.parity.report import ParityReport
from checks.parity.sampling import sample_keys
from cli.parity import register
from millrace.errors import DataError, EngineRejected, EngineUnavailable
from millrace.plan import ViewPlan
from millrace.published import PublishedVersion, PublishedView
from offline.tables.history import find_history
from offline.tables.partition_log import append_partition_log
from resources.declarations import plan_of
from resources.endpoints import FILE_NAME, start_mark
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.online_api import ServedEntity, ServedValue
from resources.settings import Settings, settings_from_env
from tests import reference
from tests.support.background_server import in_background

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
VIEW_EVER = VIEW + "      - {name: sales_ever, aggregate: count, window: lifetime}\n"
HOUR = 3_600_000
FEATURES: dict[str, tuple[str, int | None, int, int, str]] = {
    "sales_1h": ("count_rows", HOUR, 300_000, 0, "price"),
    "sales_1d_before": ("count_rows", 24 * HOUR, HOUR, HOUR, "price"),
    "price_sum_1d": ("sum", 24 * HOUR, HOUR, 0, "price"),
    "weight_avg_1d": ("avg", 24 * HOUR, HOUR, 0, "weight"),
    "price_last": ("last", 168 * HOUR, HOUR, 0, "price"),
    "sales_ever": ("count_rows", None, HOUR, 0, "price"),
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
    return lake_of(tmp_path, VIEW, sales())


def lake_of(home: Path, declared: str, rows: list[dict[str, Any]]) -> Settings:
    """A lake with these events in it, and tiles of all their days."""
    settings = settings_from_env({"MILLRACE_HOME": str(home), "HOME": str(home)})
    (home / "views").mkdir()
    (home / "views" / "sales.yaml").write_text(declared)
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
    settings = replace(settings, views=(home / "views",))
    claim_version(settings, plan_of(settings.views).view("buying"))
    built(settings, "tiles/buying/v1", sorted({date(1970, 1, 1) + timedelta(d) for d in days}))
    return settings


def built(settings: Settings, table: str, days: list[date], error: str | None = None) -> None:
    outcomes = tuple(PartitionOutcome(day, rows=9, error=error) for day in days)
    fingerprint = plan_of(settings.views).view("buying").fingerprint
    append_partition_log(settings, BuildReport(table, None, 0, outcomes), fingerprint)


Spoil = Callable[[str, str, Any], Any]


class Server:
    """The online API as it would be over some events; ``spoil`` changes single values."""

    def __init__(self) -> None:
        self.rows = sales()
        self.missing: set[int] = set()
        self.spoil: Spoil = lambda _key, _name, value: value
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.asked: list[dict[str, Any]] = []

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        rows = [row for row in self.rows if row["id"] not in self.missing]
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


def audit(lake: Settings, *, seed: int = 1, **options: Any) -> ParityReport:
    return check_parity(lake, plan_of(lake.views), "buying", lambda _: None, seed=seed, **options)


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


def test_what_is_derived_may_be_that_of_the_inputs_served(tmp_path: Path) -> None:
    lines = (
        """      - {name: is_heavy, derive: "weight_avg_1d > 30"}\n"""
        """      - {name: weight_left, derive: "weight_avg_1d - 30"}\n"""
    )
    view = plan_of(lake_of(tmp_path, VIEW + lines, sales()).views).view("buying")
    # The sum was added up in another order: on one side just 30, on the other just above.
    served = {"weight_avg_1d": 30.000000000000004, "weight_left": 3.552713678800501e-15}
    recomputed = {"weight_avg_1d": 30.0, "weight_left": 0.0}
    right, wrong = ({**served, "is_heavy": heavy} for heavy in (True, None))
    assert not differing(view, right, {**recomputed, "is_heavy": False})
    assert differing(view, wrong, {**recomputed, "is_heavy": False}) == ["is_heavy"]
    assert differing(view, {**right, "weight_left": 0.1}, {**recomputed, "is_heavy": True}) == [
        "weight_left"
    ]


def differing(view: ViewPlan, served: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    names = ("weight_avg_1d", "weight_left", "is_heavy")
    values = {n: ServedValue(served[n], None, "v1", "PRESENT") for n in names}
    entity = ServedEntity(("w0",), "OK", values)
    return [
        name
        for name in names
        if not is_equal(view, view.output(name), entity, AS_OF_MS, truth[name])
    ]


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
    assert "millrace upload buying" in raised.value.fix
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


@pytest.mark.usefixtures("server")
def test_days_that_have_events_and_no_tiles_are_named_whether_values_differ_or_not(
    lake: Settings,
) -> None:
    built(lake, "tiles/buying/v1", [date(2024, 3, 8), date(2024, 3, 9)], "no space left")
    report = audit(lake)
    assert report.is_equal
    assert report.as_json()["days_without_tiles"] == ["2024-03-08", "2024-03-09"]
    assert report.hint is not None
    assert report.hint.startswith(
        "2024-03-08..2024-03-09 have events and no tiles, so what is served lacks them: "
        "millrace backfill buying --start 2024-03-08 --end 2024-03-10, then millrace upload buying"
    )
    _, told = command(lake, "--samples", "20")
    assert "2024-03-08..2024-03-09 have events and no tiles" in told


EARLY = [date(2024, 3, day) for day in (1, 2)]


def long_history() -> list[dict[str, Any]]:
    """400 buyers who bought once, most of them in a day of their own week, five of them early."""
    rows = sales()
    for i in range(400):
        at_ms = DAY_MS - 9 * 86_400_000 + (0 if i < 5 else 2 * 86_400_000 + i * 1_000_000)
        row = {**rows[0], "id": 10_000 + i, "who": f"once{i}", "_event_ms": at_ms}
        rows.append({**row, "_ingest_ms": at_ms})
    return rows


@pytest.fixture
def early_lake(lake: Settings, server: Server, tmp_path: Path) -> Settings:
    """A lake whose first day has events of five buyers that never came again, and no tiles."""
    home = tmp_path / "early"
    home.mkdir()
    (home / FILE_NAME).write_text((lake.home / FILE_NAME).read_text())
    server.rows = long_history()
    settings = lake_of(home, VIEW_EVER, server.rows)
    built(settings, "tiles/buying/v1", EARLY, "no space left")
    return settings


def test_buyers_of_days_without_tiles_are_asked_for_whatever_the_seed(
    early_lake: Settings, server: Server
) -> None:
    server.missing = set(range(10_000, 10_005))
    for seed in range(3):
        report = audit(early_lake, seed=seed, samples=20)
        assert not report.is_equal
        assert report.samples["unserved"] == 5
        assert {d.key[0] for d in report.differences} == {f"once{i}" for i in range(5)}
        assert report.history.without_tiles == (date(2024, 3, 1),)
        shown = report.as_json()
        assert shown["entities"] == {"known": 407, "asked": 19}
        assert shown["not_looked_at"] == ["388 of 407 entities"]
    code, told = command(early_lake, "--samples", "20")
    assert code == 1
    assert "not looked at: 388 of 407 entities" in told


def test_sample_holds_the_rare_and_the_old_among_all_that_offline_knows(
    early_lake: Settings,
) -> None:
    built(early_lake, "tiles/buying/v1", EARLY)
    report = audit(early_lake, samples=100)
    assert report.is_equal
    assert report.history.unserved == ()
    assert report.samples["heavy"] + report.samples["recent"] == 7
    assert report.samples["long_ago"] >= 30
    assert report.samples["rare"] >= 15
    assert report.samples["unknown"] == 5


def test_one_seed_gives_one_sample(early_lake: Settings) -> None:
    view = plan_of(early_lake.views).view("buying")
    history = find_history(early_lake, view, pa.array([AS_OF_MS]))
    served = served_history(early_lake, view, "v1", history)
    first, again, other = (sample_keys(early_lake, history, 50, s, served) for s in (7, 7, 8))
    assert first == again
    assert first != other


def test_entities_are_counted_by_the_events_that_count_for_the_view(tmp_path: Path) -> None:
    declared = VIEW_EVER.replace("    start: 2024-03-01", "    start: 2024-03-02") + (
        "    filter: \"who <> 'w0' AND weight >= 0\"\n"
    )
    lake = lake_of(tmp_path, declared, long_history())
    view = plan_of(lake.views).view("buying")
    history = find_history(lake, view, pa.array([AS_OF_MS]))
    known = read_entities(lake, history, [date(2024, 3, 9)])
    assert known.count == 401, "neither w0 nor the five that came before the view's start"
    rows = {row["who"]: row for row in known.rows.to_pylist()}
    expected = [r for r in sales() if r["who"] == "w3"]
    assert rows["w3"]["_events"] == len(expected)
    assert rows["w3"]["_last_day"] == max(r["_event_ms"] for r in expected) // 86_400_000
    assert rows["w3"]["_is_unserved"]
    served = served_history(lake, view, "v1", history)
    assert served.out_of_reach == (date(2024, 3, 1),)


def test_tiles_behind_the_cut_over_are_not_uploaded_yet() -> None:
    version = PublishedVersion("v1", "f", {}, "t", "s", "g", "live", None, None, 0)
    published = PublishedView("buying", ("buyer",), "v1", (version,))
    assert cut_over_of(None, "f") is None
    assert cut_over_of(published, "g") is None
    assert cut_over_of(published, "f") == 0, "nothing is uploaded yet"
    at = replace(published, versions=(replace(version, cut_over_ms=DAY_MS),))
    assert cut_over_of(at, "f") == DAY_MS


def test_asset_check_passes_on_equal_answers_alone_and_says_why_it_cannot_judge(
    lake: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(lake.views)
    assert len(parity_checks(plan)) == 1  # a view without a stream is served by its uploads
    monkeypatch.setenv("MILLRACE_HOME", str(lake.home))
    view = plan.view("buying")
    check = parity_check(plan, view)
    assert list(check.check_keys) == [
        dg.AssetCheckKey(dg.AssetKey(["online", "buying_online"]), "parity")
    ]
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
        assets=[dg.AssetSpec(["online", "buying_online"])], asset_checks=[check], jobs=[job]
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
