"""``millrace alerts`` as it is called."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alerts.configuration import VERSION, Digests
from alerts.decision import decide
from alerts.delivery import now_ms
from alerts.facts import Fact, Story, Subject
from alerts.message import message_of
from alerts.outbox import Outbox
from alerts.sinks.sink import SinkUnavailable
from alerts.state import AlertStore, Posting, Watch
from cli.main import build_app
from millrace.errors import PlatformError
from resources.settings import settings_from_env
from tests.support import alert_receivers as receivers
from tests.support.alert_receivers import HttpReceiver, serving


@pytest.fixture
def hook() -> Iterator[HttpReceiver]:
    with serving(receivers.webhook()) as receiver:
        yield receiver


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: HttpReceiver) -> CliRunner:
    file = tmp_path / "alerts.yaml"
    file.write_text(
        f"version: {VERSION}\nsinks: {{hook: {{type: webhook, url: '{hook.url}'}}}}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MILLRACE_ALERTS", str(file))
    monkeypatch.setattr(sys, "argv", ["millrace"])
    return CliRunner()


@pytest.fixture
def store(runner: CliRunner) -> Iterator[AlertStore]:
    assert runner is not None
    with AlertStore.open(settings_from_env()) as found:
        yield found


def fail(store: AlertStore) -> None:
    """Open one incident, a second ago."""
    now = now_ms()
    subject = Subject("check", "events/payments", "null_rate", "2020-01-03")
    fact = Fact(subject, "error", is_ok=False, at_ms=now - 1_000, story=Story("12 % null"))
    with store.deciding() as book:
        decision = decide({}, [fact], now_ms=now, renotify_ms=10**9, route=lambda *_: ("hook",))
        book.set_conditions(decision.changed)
        book.post([Posting(message_of(one), "hook") for one in decision.transitions], now)
        book.set_watch(Watch(now * 1000, now))


def test_status_shows_what_is_open_and_what_waits(runner: CliRunner, store: AlertStore) -> None:
    fail(store)
    done = runner.invoke(build_app(), ["alerts", "status"])
    assert done.exit_code == 0, done.output
    assert "1 incidents are open" in done.output
    assert "check null_rate of events/payments, 2020-01-03: 12 % null" in done.output
    shown = json.loads(runner.invoke(build_app(), ["alerts", "status", "--json"]).output)
    assert shown["home"] == os.environ["MILLRACE_HOME"]
    assert shown["watcher"]["state"] == "running"
    assert shown["open"][0]["sinks"] == ["hook"]
    assert shown["sinks"]["hook"]["waiting"] == 1
    assert shown["sinks"]["hook"]["state"] == "behind"


def test_status_fails_if_the_watcher_is_silent(runner: CliRunner) -> None:
    done = runner.invoke(build_app(), ["alerts", "status"])
    assert done.exit_code == 1
    assert "never looked" in done.output


def test_a_test_message_arrives_or_says_why_not(runner: CliRunner, hook: HttpReceiver) -> None:
    assert runner.invoke(build_app(), ["alerts", "test", "hook"]).exit_code == 0
    assert hook.bodies[0]["messages"][0]["title"] == "Test of the sink hook"
    hook.answers = [(403, None)]
    done = runner.invoke(build_app(), ["alerts", "test", "hook"])
    assert isinstance(done.exception, SinkUnavailable)


def test_a_sink_that_is_not_there_is_refused_with_the_nearest(runner: CliRunner) -> None:
    done = runner.invoke(build_app(), ["alerts", "test", "hok"])
    assert isinstance(done.exception, PlatformError)
    assert done.exception.fix == "did you mean 'hook'?"


def test_what_was_refused_is_shown_and_queued_again(runner: CliRunner, store: AlertStore) -> None:
    fail(store)
    outbox = Outbox(store.engine)
    parcel = outbox.next("hook", "single", Digests(), now_ms())
    assert parcel is not None
    outbox.park("hook", parcel, "answered 422", now_ms())
    shown = runner.invoke(build_app(), ["alerts", "status"]).output
    assert "refused by hook: FAILED: check null_rate" in shown
    assert "1 messages wait" in runner.invoke(build_app(), ["alerts", "retry", "hook"]).output
    assert outbox.next("hook", "single", Digests(), now_ms()) == parcel
