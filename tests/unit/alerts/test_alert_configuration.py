"""The alerts file: what it says, and every fault at once."""

from pathlib import Path
from typing import Any

import pytest

from alerts.configuration import VERSION, AlertConfig, load_config, read_config
from alerts.facts import Story, Subject
from alerts.sinks.email import Email
from alerts.sinks.file import File
from alerts.sinks.slack import Slack
from alerts.sinks.webhook import Webhook
from millrace.errors import SetupError, SpecError
from resources.settings import CHECKOUT, settings_from_env

FULL = f"""
version: {VERSION}
dagster_url: https://dagster.example.com/
sinks:
  payments-chat: {{type: slack, url: "${{SLACK_URL}}"}}
  pager: {{type: pagerduty, routing_key: "${{PAGER_KEY}}"}}
  mail:
    type: email
    host: smtp.example.com
    from: millrace@example.com
    to: [a@example.com, b@example.com]
    user: millrace
    password: ${{SMTP_PASSWORD}}
  hook:
    type: webhook
    url: https://hooks.example.com/${{TENANT}}
    headers: {{Authorization: "Bearer ${{HOOK_TOKEN}}", X-Team: data}}
    signing_key: ${{HOOK_KEY}}
  log: {{type: stdout}}
  audit: {{type: file, path: "/var/log/${{TENANT}}.jsonl", max_bytes: 1000, keep: 2}}
routes:
  - owners: [payments@example.com]
    severities: [error]
    sinks: [pager, payments-chat]
  - tags: {{domain: retail}}
    sinks: [hook]
fallback: [mail]
operators: [pager]
renotify: 12h
digest: {{above: 5, size: 20, window: 2m}}
streams: {{hold: 30s, max_lag_events: 1000, max_checkpoint_age: 1m}}
heartbeat: {{every: 1d, sinks: [mail]}}
"""
ENV = {
    "SLACK_URL": "https://hooks.slack.com/services/T/B/x",
    "SMTP_PASSWORD": "p",
    "TENANT": "t1",
    "HOOK_TOKEN": "tok",
    "HOOK_KEY": "k",
}


def test_the_example_of_the_docs_is_read() -> None:
    text = (CHECKOUT / "docs" / "alerts.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    config = read_config(example)
    assert list(config.sinks) == ["payments-chat", "pager", "mail", "hook", "audit", "log"]
    assert len(config.routing.routes) == 3


def faults_of(text: str) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        read_config(text)
    return {f"{fault.where}: {fault.what}": fault.fix for fault in caught.value.faults}


def in_file(*lines: str) -> str:
    return "\n".join([f"version: {VERSION}", *lines])


def test_everything_that_can_be_said_is_read() -> None:
    config = read_config(FULL)
    assert list(config.sinks) == ["payments-chat", "pager", "mail", "hook", "log", "audit"]
    assert config.renotify_ms == 12 * 3_600_000
    assert (config.digests.above, config.digests.size, config.digests.window_ms) == (5, 20, 120_000)
    assert config.streams.max_lag_events == 1000
    assert config.streams.max_checkpoint_age_ms == 60_000
    assert (config.heartbeat_ms, config.heartbeat_sinks) == (86_400_000, ("mail",))
    assert config.dagster_url == "https://dagster.example.com"
    subject, story = Subject("check", "events/payments"), Story(owners=("payments@example.com",))
    assert config.routing.sinks_of(subject, "error", story) == ("pager", "payments-chat")
    assert config.routing.sinks_of(subject, "warn", story) == ("mail",)
    assert config.routing.operators == ("pager",)


def test_environment_variables_are_put_in_when_a_sink_is_made() -> None:
    config = read_config(FULL)
    assert config.sinks["payments-chat"].open(ENV) == Slack(ENV["SLACK_URL"])
    mail: Any = config.sinks["mail"].open(ENV)
    assert isinstance(mail, Email)
    assert (mail.port, mail.security, mail.password) == (587, "starttls", ENV["SMTP_PASSWORD"])
    assert mail.recipients == ("a@example.com", "b@example.com")
    audit = config.sinks["audit"].open(ENV)
    assert audit == File(Path("/var/log/t1.jsonl"), max_bytes=1000, keep=2)
    hook = config.sinks["hook"].open(ENV)
    headers = {"Authorization": "Bearer tok", "X-Team": "data"}
    assert hook == Webhook("https://hooks.example.com/t1", headers, ENV["HOOK_KEY"])


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(SetupError) as caught:
        read_config(FULL).sinks["pager"].open(ENV)
    assert "PAGER_KEY" in caught.value.what
    assert caught.value.where == "alert sink pager"


def test_a_file_with_only_a_sink_tells_it_everything() -> None:
    config = read_config(in_file("sinks: {chat: {type: slack, url: '${URL}'}}"))
    assert config.routing.sinks_of(Subject("run", "x"), "error", Story()) == ("chat",)
    assert config.routing.operators == ("chat",)


def test_every_fault_is_reported_at_once_with_its_line() -> None:
    found = faults_of(
        in_file(
            "sinks:",
            "  chat: {type: slak}",
            "  pager: {type: pagerduty, routing_key: 0123456789}",
            "  hook: {type: webhook, headers: {X-Api-Key: abc}}",
            "  mail: {type: email, host: h, from: a, to: b, security: ssl}",
            "routes:",
            "  - {severities: [errors], kinds: [chek], sinks: [chatt]}",
            "  - {owners: [x]}",
            "renotify: soon",
            "digest: {above: 0, size: many}",
            "heartbeat: {every: 1d, sinks: [nobody]}",
            "colour: red",
        )
    )
    assert found == {
        "alerts.yaml:3: there is no sink type 'slak'": "did you mean 'slack'?",
        "alerts.yaml:4: routing_key stands here in the clear": (
            "write routing_key: ${ROUTING_KEY} and set that variable"
        ),
        "alerts.yaml:5: a webhook sink has no url": "add url: …",
        "alerts.yaml:5: X-Api-Key stands here in the clear": (
            "write X-Api-Key: ${X_API_KEY} and set that variable"
        ),
        "alerts.yaml:6: to is the text 'b', not a list": "write to: [ … ]",
        "alerts.yaml:6: security is 'ssl'": "known: none, starttls, tls",
        "alerts.yaml:8: severities has 'errors'": "did you mean 'error'?",
        "alerts.yaml:8: kinds has 'chek'": "did you mean 'check'?",
        "alerts.yaml:8: there is no sink 'chatt'": "did you mean 'chat'?",
        "alerts.yaml:9: a route has no sinks": "add sinks: …",
        "alerts.yaml:10: renotify: 'soon' is not a duration; write a whole number and one of "
        "ms, s, m, h, d: 90s, 7d": "write renotify: 1d, 30m or 90s",
        "alerts.yaml:11: above is 0": "write a whole number of at least 1",
        "alerts.yaml:11: size is the text 'many', not a number": "write a plain number: 5 or 0.2",
        "alerts.yaml:12: there is no sink 'nobody'": "known: chat, hook, mail, pager",
        "alerts.yaml:13: the alerts file has no key 'colour'": found[
            "alerts.yaml:13: the alerts file has no key 'colour'"
        ],
    }


def test_a_secret_in_the_clear_is_not_repeated() -> None:
    found = faults_of(in_file("sinks: {p: {type: pagerduty, routing_key: hunter2}}"))
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the file is empty"),
        ("sinks: {a: {type: stdout}}", "the alerts file has no version"),
        ("version: v9\nsinks: {a: {type: stdout}}", "version is 'v9'"),
        (in_file("sinks: {}"), "there is no sink"),
        (in_file("sinks: {a: {}}"), "the sink a has no type"),
        (in_file("sinks: {a b: {type: stdout}}"), "'a b' is no name of a sink"),
        (in_file("sinks: [a]"), "sinks is a list, not key: value pairs"),
        (in_file("sinks: {a: {type: stdout"), "this is no YAML"),
        ("- a", "the alerts file is a list, not key: value pairs"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text: str, what: str) -> None:
    assert any(what in fault for fault in faults_of(text))


def test_without_a_file_everything_goes_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.configuration.DEFAULT_FILE", tmp_path / "none.yaml")
    config: AlertConfig = load_config(settings_from_env({}))
    assert config.routing.sinks_of(Subject("run", "x"), "error", Story()) == ("stdout",)


def test_the_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    missing = settings_from_env({"MILLRACE_ALERTS": str(tmp_path / "none.yaml")})
    with pytest.raises(SetupError, match=r"none\.yaml") as caught:
        load_config(missing)
    assert caught.value.where == "MILLRACE_ALERTS"
    (tmp_path / "alerts.yaml").write_text(FULL, encoding="utf-8")
    named = settings_from_env({"MILLRACE_ALERTS": str(tmp_path / "alerts.yaml")})
    assert "hook" in load_config(named).sinks
