"""Everything that tells of lineage, driven over engines in memory; and a receiver that rebuilds it.

``LineageStack`` is a stack of a test's own whose tables, streams and store are stand-ins, but whose
emitter, outbox and receivers are the real ones. ``Receiver`` is a real HTTP server.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from jobs.definitions import build_definitions
from jobs.streams.sensor import tick
from lineage.assertions import (
    Assertion,
    ColumnMetrics,
    TableMetrics,
    emit_assertions,
)
from lineage.runs import Enclosing
from lineage.shipping import ship
from millrace.coarsen import Coarsening
from millrace.plan import Plan, ViewPlan
from offline.tables.history import History
from offline.training.lineage import emitting
from offline.training.requested_features import request_features
from resources.declarations import plan_of
from resources.lake.offset_ledger import OffsetLedger
from resources.settings import Settings
from streaming.archive.lineage import emitting_archive
from streaming.control import deployments
from streaming.publications.records import StreamRecord
from streaming.upload.lineage import emitting_upload
from streaming.upload.plan import UploadPlan
from tests.support.background_server import in_background
from tests.support.fake_offline import FakeOffline
from tests.support.stream_fakes import FakeEngines, fake_engines, write_views

DAYS = (date(2020, 1, 2), date(2020, 1, 3), date(2020, 1, 4))
STARTED = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAGSTER_RUN = "0b7c6a3e-3c5b-4b1e-9a53-2f4f0f3c9d11"
_TEXT = "    description: Card payments.\n"
_ABOUT = "    owner: payments@example.com\n    tags: {domain: payments}\n"

Event = dict[str, Any]


def silent(_: str) -> None:
    """Take progress and say nothing."""


@dataclass
class LineageStack:
    """A stack in a folder; what it tells goes to a file unless ``to`` names other receivers."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    instance: dg.DagsterInstance
    to: str | None = None
    is_described: bool = False
    offline: FakeOffline = field(default_factory=FakeOffline)
    days: Sequence[date] = DAYS

    def __post_init__(self) -> None:
        views = self.root / "views"
        self.plan: Plan = write_views(views)
        if self.is_described:
            file = views / "views.yaml"
            text = file.read_text(encoding="utf-8")
            text = text.replace("  - name: payments\n", "  - name: payments\n" + _TEXT, 1)
            file.write_text(text.replace("    start:", _TEXT + _ABOUT + "    start:"))
            self.plan = plan_of([file])
        fakes = fake_engines(self.root / "home", views=[views])
        self.settings: Settings = replace(
            fakes.settings,
            lake=str(self.root / "lake"),
            store_url="redis://:secret@store:6379/0",
            kafka="broker:9092",
            lineage=self.to,
        )
        self.engines: FakeEngines = replace(fakes, settings=self.settings)
        self.monkeypatch.setenv("MILLRACE_HOME", str(self.settings.home))
        self.monkeypatch.setenv("MILLRACE_LAKE", self.settings.lake)
        if self.to is None:
            self.monkeypatch.delenv("MILLRACE_LINEAGE", raising=False)
        else:
            self.monkeypatch.setenv("MILLRACE_LINEAGE", self.to)

    @property
    def view(self) -> ViewPlan:
        return self.plan.view("spend")

    def build(self, days: Sequence[date] = DAYS, **tags: str) -> dg.ExecuteInProcessResult:
        """Build events, tiles and features of some neighbouring days in one Dagster run."""
        defs = build_definitions(
            self.plan, self.settings, offline=self.offline, engines=self.engines
        )
        keys = [("events", "payments_events"), ("tiles", "spend_tiles"), ("features", "spend")]
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(key) for key in keys],
            tags={
                "dagster/asset_partition_range_start": days[0].isoformat(),
                "dagster/asset_partition_range_end": days[-1].isoformat(),
                **tags,
            },
            raise_on_error=False,
        )

    def deploy(self) -> StreamRecord:
        return deployments.deploy(self.settings, self.plan, "spend", silent, engines=self.engines)

    def observe(self) -> None:
        """Let the sensor look once, as if it had never looked."""
        tick(self.engines, self.instance, None)

    def stop(self) -> StreamRecord:
        return deployments.stop(self.settings, "spend", silent, engines=self.engines)

    def archive(self, events: int = 5) -> None:
        """Archive some events of the topic, then stop."""
        books = OffsetLedger("payments", first={0: 0}, next={0: 0})
        source = self.plan.sources["payments"]
        with emitting_archive(self.settings, source, self.engines.brokers, books) as told:
            told.cycle(replace(books.plus({"events": events}), next={0: events}))

    def upload(self) -> None:
        """Upload some tiles."""
        what = UploadPlan(
            view=self.view,
            version="v1",
            table="tiles/spend/v1",
            days=DAYS,
            missing_days=(),
            outdated_days=(),
            cut_over_ms=0,
            sealed_before_ms=None,
            coarsening=Coarsening.of(self.view, 0, 0),
            built_ms=0,
        )
        with emitting_upload(self.settings, what) as told:
            told.tiles, told.bytes = 40, 4_000

    def train(self, *, fails: bool = False) -> Path:
        """Write a training set of two rows."""
        import pyarrow as pa

        spine = pa.table({"customer_id": [1, 2], "event_timestamp": [10, 20]})
        request = request_features(self.plan, ["spend:payments_1h"])
        view = request.views[0].view
        history = History(view, "events/payments", 3, DAYS, 33, has_null_keys=False, warnings=())
        out = self.root / "set.parquet"
        read = (self.root / "spine.csv", spine)
        with emitting(self.settings, out, read, request, [history], engine="local") as written:
            if fails:
                raise OSError("the disk is full")
            out.write_bytes(b"rows")
            written(spine.append_column("payments_1h", pa.array([3, None])))
        return out

    def check(self, *, part_of: Enclosing | None = None) -> None:
        """Tell of one passed, one broken and one undecided rule."""
        emit_assertions(
            self.settings,
            "features/spend/v1",
            [
                Assertion(
                    "null_rate",
                    passed=False,
                    severity="error",
                    day=DAYS[0],
                    column="payments_1h",
                    expected="at most 0.02",
                    actual="0.5",
                ),
                Assertion("row_count", passed=True, severity="warn", day=DAYS[0], actual="12"),
                Assertion("drift", passed=True, severity="warn", reason="too few days"),
            ],
            part_of=part_of,
            delta_version=7,
            metrics=TableMetrics(
                rows=12,
                bytes=900,
                columns={"payments_1h": ColumnMetrics(nulls=6, distinct=3, quantiles={0.5: 1.0})},
            ),
        )

    def events(self) -> list[Event]:
        """Ship, and return all that the file has."""
        ship(self.settings, is_forced=True)
        path = self.settings.home / "lineage" / "events.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def enclosing(attempt: int = 0) -> Enclosing:
    """Return a Dagster run that nothing ran in."""
    return Enclosing(DAGSTER_RUN, "backfill_spend", STARTED, attempt)


def by_run(events: Sequence[Event]) -> dict[tuple[str, str], list[str]]:
    """Return the states of each run in order, by (job, run id)."""
    found: dict[tuple[str, str], list[str]] = {}
    for event in events:
        if "run" in event:
            key = (event["job"]["name"], event["run"]["runId"])
            found.setdefault(key, []).append(event["eventType"])
    return found


def states_of(events: Sequence[Event], job: str) -> list[list[str]]:
    """Return the states of each run of a job."""
    return [states for (name, _), states in by_run(events).items() if name == job]


def last_of(events: Sequence[Event], job: str) -> Event:
    """Return the newest event of a job's runs."""
    return [e for e in events if "run" in e and e["job"]["name"] == job][-1]


# --- a receiver over HTTP -----------------------------------------------------------------------


@dataclass
class Receiver:
    """A server that keeps what it is sent, and may be told to answer something else.

    Attributes:
        answers: status to answer an event with, by its place among the requests; 201 otherwise.
    """

    port: int = 0
    events: list[Event] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["Receiver"]:
        """Serve; started again it has the port and the events it had."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take(self.path, json.loads(body), self.headers)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        self.port = server.server_port
        with in_background(server):
            yield self

    def take(self, path: str, event: Event, headers: Any) -> int:
        """Take one event; returns the status to answer."""
        status = 404 if path != "/api/v1/lineage" else self.answers.get(self.asked, 201)
        self.asked += 1
        if status == 201:
            self.events.append(event)
            self.keys.append(headers["Idempotency-Key"])
        return status

    @property
    def edges(self) -> set[tuple[tuple[str, str], str, tuple[str, str]]]:
        """What flows where, out of the events alone: (dataset read, job, dataset written)."""
        return {
            (_identity(read), event["job"]["name"], _identity(written))
            for event in self.events
            if "run" in event
            for read in event["inputs"]
            for written in event["outputs"]
        }

    def facet(self, dataset: tuple[str, str], name: str) -> Any:
        """Return the newest facet of that name of a dataset that was written."""
        found = [
            written["facets"][name]
            for event in self.events
            for written in event.get("outputs", ())
            if _identity(written) == dataset and name in written["facets"]
        ]
        return found[-1]


def _identity(dataset: Event) -> tuple[str, str]:
    return dataset["namespace"], dataset["name"]


# --- the official schemas -----------------------------------------------------------------------


class Spec:
    """The OpenLineage schemas of a folder."""

    def __init__(self, folder: Path) -> None:
        documents = [
            json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.json"))
        ]
        resources = [(d["$id"], Resource(d, DRAFT202012)) for d in documents]
        self._registry: Registry[Any] = Registry().with_resources(resources)
        self.facets_seen: set[str] = set()

    def faults(self, event: Event) -> list[str]:
        """Return what is wrong with an event, and with each facet by the schema that it names."""
        found = self._check(event, event["schemaURL"], "event")
        for path, facet in _facets(event):
            self.facets_seen.add(path)
            found += self._check(facet, facet["_schemaURL"], path)
        return found

    def _check(self, document: Any, schema: str, where: str) -> list[str]:
        from jsonschema import Draft202012Validator

        validator = Draft202012Validator(
            {"$ref": schema},
            registry=self._registry,
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        return [f"{where}: {error.message[:200]}" for error in validator.iter_errors(document)]


def _facets(event: Event) -> Iterator[tuple[str, Event]]:
    owners = [("run", event.get("run", {})), ("job", event.get("job", {}))]
    owners.append(("dataset", event.get("dataset", {})))
    owners += [("dataset", d) for d in (*event.get("inputs", ()), *event.get("outputs", ()))]
    for kind, owner in owners:
        for name, facet in owner.get("facets", {}).items():
            yield f"{kind}.{name}", facet
        for group in ("inputFacets", "outputFacets"):
            for name, facet in owner.get(group, {}).items():
                yield f"{group}.{name}", facet
