"""``millrace lineage``: how it stands, sending now, telling again."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from cli.lineage import register
from lineage.outbox import Outbox
from millrace.errors import SetupError
from resources.settings import settings_from_env
from tests.support.lineage_cases import Receiver


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver().running() as running:
        monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
        monkeypatch.setenv("MILLRACE_LINEAGE", running.url)
        yield running


def run(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["lineage", *arguments], catch_exceptions=False)


def told(count: int) -> None:
    for number in range(count):
        Outbox.of(settings_from_env()).add_static({"n": number})


def test_status_counts_what_waits_and_sends_nothing(server: Receiver) -> None:
    told(2)
    Outbox.of(settings_from_env()).start("r", "o", {})
    shown = run("status").stdout
    assert f"{server.url}/api/v1/lineage: 0 sent, 3 waiting" in shown
    assert "1 run(s) are open" in shown
    shown = json.loads(run("status", "--json").stdout)
    assert shown["home"] == os.environ["MILLRACE_HOME"]
    assert shown["receivers"][f"{server.url}/api/v1/lineage"]["waiting"] == 3
    assert server.events == []


def test_status_counts_what_was_sent_and_since_when_it_is_not(server: Receiver) -> None:
    told(3)
    server.answers[2] = 503
    assert run("ship").exit_code == 1
    name = f"{server.url}/api/v1/lineage"
    one = json.loads(run("status", "--json").stdout)["receivers"][name]
    assert (one["state"], one["sent"], one["waiting"], one["refused"]) == ("away", 2, 1, 0)
    assert one["since_ms"] >= one["sent_ms"] > 1_700_000_000_000
    assert "503" in one["detail"]
    shown = run("status").stdout
    assert f"{name}: 2 sent, last " in shown
    assert "1 waiting, away since " in shown
    run("ship")
    one = json.loads(run("status", "--json").stdout)["receivers"][name]
    assert (one["state"], one["sent"], one["since_ms"], one["detail"]) == ("ok", 3, None, "")


def test_where_nobody_is_told_status_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_LINEAGE", "none")
    assert "nobody is told: lineage.receivers is none" in run("status").stdout


def test_ship_sends_and_fails_where_a_receiver_does(server: Receiver) -> None:
    told(2)
    server.answers[1] = 503
    done = run("ship")
    assert done.exit_code == 1
    assert "1 sent now, 1 waiting" in done.stdout
    assert run("ship").exit_code == 0
    assert [event["n"] for event in server.events] == [0, 1]


def test_ship_ends_what_a_dead_process_began(server: Receiver) -> None:
    gone = f"process:{platform.node()}:{os.getpid()}:another start"
    Outbox.of(settings_from_env()).start("r", gone, {"run": {"runId": "r", "facets": {}}})
    assert run("ship").exit_code == 0
    assert [event.get("eventType") for event in server.events] == [None, "ABORT"]
    assert "0 run(s) are open" in run("status").stdout


def test_replay_tells_again_in_order_and_by_the_same_keys(server: Receiver) -> None:
    told(2)
    run("ship")
    run("replay", "--since", "2000-01-01")
    run("ship")
    assert [event["n"] for event in server.events] == [0, 1, 0, 1]
    assert server.keys[:2] == server.keys[2:]


def test_replay_to_an_unknown_receiver_names_those_there_are(server: Receiver) -> None:
    with pytest.raises(SetupError) as caught:
        run("replay", "--since", "2000-01-01", "--receiver", "console")
    assert "/api/v1/lineage" in caught.value.fix
