"""``millrace lookup``: what it asks the server, and what it shows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from typer.testing import CliRunner

from cli.lookup import register
from millrace.errors import EngineUnavailable, NotDeclared, ServingError
from resources import endpoints
from resources.settings import Settings
from tests.support.background_server import in_background
from tests.support.stack_fakes import pretend_running

FEATURES = {
    "n_1h": {"value": 3, "ts": "2025-11-25T12:00:02.000Z", "version": "v1", "status": "PRESENT"},
    "last": {"value": None, "ts": None, "version": "v1", "status": "NULL_VALUE"},
}
ANSWER = {
    "entity_name": "customer",
    "as_of": "2025-11-25T12:00:03.120Z",
    "key": 101,
    "features": FEATURES,
    "status": "PARTIAL",
}


@dataclass
class FakeServer:
    """Answers every GET with what it is told, and remembers the paths."""

    url: str = ""
    status: int = 200
    answer: Any = field(default_factory=lambda: ANSWER)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(self.path)
            body = json.dumps(fake.answer).encode()
            self.send_response(fake.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{listening.server_port}"
    monkeypatch.setattr(endpoints, "server_url", lambda _settings: fake.url)
    with in_background(listening):
        yield fake


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    pretend_running(tmp_path, "server")
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


def run(app: typer.Typer, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["lookup", *arguments])


def test_it_shows_a_table(app: typer.Typer, server: FakeServer) -> None:
    result = run(app, "customer", "101", "--features", "n_1h,last")
    assert result.exit_code == 0
    for text in (
        "customer 101: PARTIAL",
        "n_1h",
        "PRESENT",
        "NULL_VALUE",
        "v1",
        "as of 2025-11-25",
    ):
        assert text in result.stdout
    assert server.asked == ["/features/101?entity=customer&features=n_1h%2Clast"]


def test_json_is_the_form_of_a_lookup(app: typer.Typer, server: FakeServer) -> None:
    result = run(app, "customer", "101", "a/b", "--features", "n_1h", "--json")
    told = json.loads(result.stdout)
    assert (told["entity_name"], told["as_of"]) == ("customer", "2025-11-25T12:00:03.120Z")
    assert told["results"] == [{"key": 101, "features": FEATURES, "status": "PARTIAL"}] * 2
    assert server.asked[1].startswith("/features/a%2Fb?")


def test_what_the_server_refuses_is_told_with_its_mend(
    app: typer.Typer, server: FakeServer
) -> None:
    error = {"code": "x", "message": "no feature 'n'", "where": "customer", "fix": "known: n_1h"}
    server.status, server.answer = 404, {"error": {**error, "request_id": "7"}}
    unknown = run(app, "customer", "101", "--features", "n").exception
    assert isinstance(unknown, NotDeclared)
    assert (unknown.what, unknown.fix) == ("no feature 'n'", "known: n_1h")
    server.status, server.answer = 500, []
    broken = run(app, "customer", "101", "--features", "n").exception
    assert isinstance(broken, ServingError)
    assert "the server answered 500" in broken.what


@pytest.mark.parametrize(
    ("features", "stream", "fix"),
    [
        ("n", "stream: {topic: s}", "millrace stream deploy spend"),
        ("spend:*", "batch: {format: csv, path: x}", "millrace upload spend"),
        ("service:all", "batch: {format: csv, path: x}", "millrace upload spend"),
    ],
)
def test_a_view_that_is_declared_and_not_deployed_is_told_so(
    app: typer.Typer,
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    features: str,
    stream: str,
    fix: str,
) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "spend.yaml").write_text(
        "version: millrace/v1\n"
        f"sources: [{{name: s, columns: {{at: timestamp, who: int64}}, event_time: at, {stream}}}]\n"
        "entities: [{name: customer, join_key: who, type: int64}]\n"
        "feature_views: [{name: spend, entity: customer, source: s, start: 2024-01-01,"
        " features: [{name: n, aggregate: count, window: 1h}]}]\n"
        "feature_services: [{name: all, features: ['spend:n']}]\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path / "views"))
    error = {"code": "x", "message": "no entity 'customer'", "where": "", "fix": ""}
    server.status, server.answer = 404, {"error": {**error, "request_id": "7"}}
    told = run(app, "customer", "101", "--features", features).exception
    assert isinstance(told, NotDeclared)
    assert told.what == "the view 'spend' is declared, and not deployed"
    assert told.fix == fix


def test_a_server_that_is_away_is_said_to_be(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Settings) -> str:
        return "http://127.0.0.1:1"

    monkeypatch.setattr(endpoints, "server_url", away)
    error = run(app, "customer", "101", "--features", "n").exception
    assert isinstance(error, EngineUnavailable)
    assert error.fix == "millrace up server"


COMPOSITE = """
version: millrace/v1
sources:
  - {name: s, columns: {at: timestamp, who: int64, shop: string, till: int64}, event_time: at,
     stream: {topic: s}}
entities:
  - {name: shopper, join_key: who, type: int64}
  - {name: shop, join_key: shop, type: string}
  - {name: till, join_key: till, type: int64}
feature_views:
  - {name: spend, entity: shopper, source: s, start: 2024-01-01,
     features: [{name: n, aggregate: count, window: 1h}]}
  - {name: tills, entities: [shop, till], source: s, start: 2024-01-01,
     features: [{name: m, aggregate: count, window: 1h}]}
"""


@pytest.fixture
def declared(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "spend.yaml").write_text(COMPOSITE, encoding="utf-8")
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path / "views"))
    return app


@pytest.mark.parametrize(
    ("entity", "keys", "asked"),
    [
        ("shopper", ["who=12748", "7", '{"who": 1}'], ["12748", "7", '{"who": 1}']),
        ("shop", ["shop=a", "b=c", "shop=shop=x"], ["a", "b=c", "shop=x"]),
        ("shop,till", ["shop=a,till=1", "till=2", "shop=b"], ["shop=a,till=1", "till=2,shop=b"]),
        ("shop,till", ["shop=a", "till=1", "shop=b"], ["shop=a,till=1", "shop=b"]),
        ("unheard", ["who=1"], ["who=1"]),
    ],
)
def test_a_key_may_name_its_join_key(
    declared: typer.Typer, server: FakeServer, entity: str, keys: list[str], asked: list[str]
) -> None:
    assert run(declared, entity, *keys, "--features", "n").exit_code == 0
    paths = [unquote(path.removeprefix("/features/").partition("?")[0]) for path in server.asked]
    assert paths == asked


@pytest.mark.parametrize(
    ("entity", "key", "what", "fix"),
    [
        ("shopper", "whom=1", "no join key of shopper", "write who=…; did you mean 'who'?"),
        ("shop,till", "tilt=1", "no join key of shop,till", "write shop=…,till=…; did you mean"),
    ],
)
def test_a_key_by_another_name_is_told_the_names_there_are(
    declared: typer.Typer, server: FakeServer, entity: str, key: str, what: str, fix: str
) -> None:
    told = run(declared, entity, key, "--features", "n").exception
    assert isinstance(told, ServingError)
    assert what in told.what
    assert fix in told.fix
    assert server.asked == []


@pytest.mark.parametrize(
    ("entity", "features", "what", "fix"),
    [
        ("shoper", "n", "no entity 'shoper'", "did you mean 'shopper' or 'shop'?"),
        ("shopper", "spent:n", "no view 'spent'", "did you mean 'spend'?"),
        ("shopper", "service:all", "no feature service 'all'", "known: "),
    ],
)
def test_what_nothing_declares_starts_no_part(
    declared: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entity: str,
    features: str,
    what: str,
    fix: str,
) -> None:
    (tmp_path / "endpoints.json").unlink()
    monkeypatch.delenv("MILLRACE_STORE_URL", raising=False)
    told = run(declared, entity, "1", "--features", features).exception
    assert isinstance(told, NotDeclared)
    assert told.what == what
    assert told.fix.startswith(fix)
    assert not (tmp_path / "desired.json").exists()
