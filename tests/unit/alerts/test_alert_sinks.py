"""Each sink against a real server that refuses what the real service would refuse."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from alerts.message import Delivery, Message, digest_title, probe_message
from alerts.sinks import email, file, pagerduty, slack, stdout, webhook
from alerts.sinks.sink import MessageRefused, SinkUnavailable
from millrace.errors import EngineError
from tests.support import alert_receivers as receivers
from tests.support.alert_receivers import ROUTING_KEY, HttpReceiver, serving
from tests.support.smtp_receiver import CERTIFICATE, SmtpReceiver, serving_smtp


def message(number: int = 0, **changes: Any) -> Message:
    base = Message(
        key=f"incident{number}:opened",
        incident=f"incident{number}",
        status="opened",
        kind="check",
        name="events/payments",
        severity="error",
        fingerprint=f"check|events/payments|null_rate|2020-01-{number + 1:02d}|error",
        title=f"FAILED: check null_rate of events/payments, 2020-01-{number + 1:02d}",
        summary="12 % of <amount> & more are null; at most 1 % may be",
        details={"expected": "≤ 0.01", "actual": "0.12"},
        owners=("payments@example.com",),
        links={"run": "http://dagster/runs/r1", "runbook": "https://docs/runbooks#null_rate"},
        at_ms=1_577_836_800_123,
        opened_ms=1_577_836_800_000,
    )
    return replace(base, **changes)


def one(**changes: Any) -> Delivery:
    only = message(**changes)
    return Delivery(only.key, (only,))


def digest(count: int, **changes: Any) -> Delivery:
    return Delivery("digest:1", tuple(message(i, **changes) for i in range(count)))


RIGHT = str(0xC0FFEE)
LONG = {
    "title": "t" * 140,
    "summary": "s" * 800,
    "details": {f"detail {i}": "d" * 300 for i in range(12)},
    "owners": tuple(f"owner{i}@example.com" for i in range(20)),
}


@pytest.fixture
def slack_server() -> Iterator[HttpReceiver]:
    with serving(receivers.slack()) as receiver:
        yield receiver


@pytest.fixture
def pager() -> Iterator[HttpReceiver]:
    with serving(receivers.pagerduty()) as receiver:
        yield receiver


@pytest.fixture
def hook() -> Iterator[HttpReceiver]:
    with serving(receivers.webhook()) as receiver:
        yield receiver


@pytest.fixture
def mailbox() -> Iterator[SmtpReceiver]:
    with serving_smtp(SmtpReceiver()) as receiver:
        yield receiver


def test_slack_takes_a_message_with_its_marks_escaped(slack_server: HttpReceiver) -> None:
    slack.Slack(slack_server.url).send(one())
    [body] = slack_server.bodies
    assert body["text"] == "FAILED: check null_rate of events/payments, 2020-01-01"
    sections = [block["text"]["text"] for block in body["blocks"] if block["type"] == "section"]
    assert "12 % of &lt;amount&gt; &amp; more are null; at most 1 % may be" in sections
    assert "*actual*: 0.12" in sections[1]
    context = body["blocks"][-1]["elements"][0]["text"]
    assert "payments@example.com" in context
    assert "<http://dagster/runs/r1|run>" in context


@pytest.mark.parametrize("delivery", [one(**LONG), digest(2), digest(200, title="t" * 140)])
def test_slack_takes_the_longest_messages(slack_server: HttpReceiver, delivery: Delivery) -> None:
    slack.Slack(slack_server.url).send(delivery)
    assert not slack_server.refused


def test_a_digest_names_every_member_and_counts_them(slack_server: HttpReceiver) -> None:
    healed = message(7, status="resolved", title="RESOLVED: the seventh")
    slack.Slack(slack_server.url).send(Delivery("digest:1", (message(1), message(2), healed)))
    [body] = slack_server.bodies
    assert body["text"] == "3 alerts: 2 failed, 1 resolved"
    assert "2020-01-02" in body["blocks"][1]["text"]["text"]
    assert "RESOLVED: the seventh" in body["blocks"][1]["text"]["text"]


def test_a_title_counts_only_what_there_is() -> None:
    assert digest_title([message(1), message(2)]) == "2 alerts: 2 failed"


def test_pagerduty_triggers_and_resolves_under_one_key(pager: HttpReceiver) -> None:
    sink = pagerduty.PagerDuty(ROUTING_KEY, pager.url)
    sink.send(one())
    sink.send(one(status="resolved"))
    opened, resolved = pager.bodies
    assert (opened["event_action"], resolved["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == resolved["dedup_key"] == "incident0"
    assert opened["payload"]["severity"] == "critical"
    assert opened["payload"]["timestamp"] == "2020-01-01T00:00:00Z"
    assert opened["payload"]["group"] == "payments@example.com"
    assert {"href": "http://dagster/runs/r1", "text": "run"} in opened["links"]


def test_pagerduty_takes_the_longest_message_a_warning_and_a_test(pager: HttpReceiver) -> None:
    sink = pagerduty.PagerDuty(ROUTING_KEY, pager.url)
    sink.send(one(**LONG))
    sink.send(one(severity="warn"))
    probe = probe_message("test:1", 0, "pager")
    sink.send(Delivery(probe.key, (probe,)))
    severities = [body["payload"]["severity"] for body in pager.bodies]
    assert severities == ["critical", "warning", "info"]


def test_a_webhook_gets_the_key_as_a_header_and_a_signature(hook: HttpReceiver) -> None:
    sink = webhook.Webhook(hook.url, {"Authorization": "Bearer t"}, "signing")
    sink.send(digest(3))
    [taken] = hook.taken
    assert taken.headers["idempotency-key"] == taken.body["key"] == "digest:1"
    assert taken.headers["authorization"] == "Bearer t"
    expected = f"sha256={webhook.signature('signing', taken.raw)}"
    assert taken.headers["x-millrace-signature"] == expected
    assert [m["key"] for m in taken.body["messages"]] == [f"incident{i}:opened" for i in range(3)]
    assert Message.from_json(taken.body["messages"][0]) == message(0)


def mail_sink(mailbox: SmtpReceiver, **changes: Any) -> email.Email:
    base = email.Email(
        "127.0.0.1", "Millrace <m@example.com>", ("a@example.com", "b@example.com"), mailbox.port,
        security="none",
    )  # fmt: skip
    return replace(base, **changes)


def body_of(mail: EmailMessage) -> str:
    return str(mail.get_content())


def test_mails_of_one_incident_form_a_thread_and_keep_their_ids(mailbox: SmtpReceiver) -> None:
    sink = mail_sink(mailbox)
    sink.send(one())
    sink.send(one(status="resolved", key="incident0:resolved"))
    sink.send(one())
    opened, resolved, again = mailbox.mails
    assert opened["Subject"] == f"[millrace] {message().title}"
    assert opened["To"] == "a@example.com, b@example.com"
    assert "12 % of <amount> & more are null" in body_of(opened)
    assert "expected: ≤ 0.01" in body_of(opened)
    assert resolved["In-Reply-To"] == opened["Message-ID"]
    assert again["Message-ID"] == opened["Message-ID"] != resolved["Message-ID"]
    assert opened["X-Millrace-Key"] == "incident0:opened"


def test_a_digest_is_one_mail_with_every_member(mailbox: SmtpReceiver) -> None:
    mail_sink(mailbox).send(digest(20))
    [mail] = mailbox.mails
    assert mail["Subject"] == "[millrace] 20 alerts: 20 failed"
    assert all(f"2020-01-{day:02d}" in body_of(mail) for day in range(1, 21))


def test_mail_is_sent_as_a_user_and_a_wrong_password_is_no_fault_of_the_message(
    mailbox: SmtpReceiver,
) -> None:
    mailbox.password = RIGHT
    mail_sink(mailbox, user="alerts", password=RIGHT).send(one())
    with pytest.raises(SinkUnavailable, match="535"):
        mail_sink(mailbox, user="alerts", password="not " + RIGHT).send(one())
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_encrypted_and_only_to_a_server_that_is_trusted(
    security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_smtp(SmtpReceiver(security=security, password=RIGHT)) as mailbox:
        sink = mail_sink(mailbox, security=security, user="alerts", password=RIGHT)
        with pytest.raises(SinkUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            sink.send(one())
        assert not mailbox.mails
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        sink.send(one())
        [mail] = mailbox.mails
        assert mail["X-Millrace-Key"] == "incident0:opened"


def test_a_password_is_not_sent_to_a_server_that_does_not_encrypt(mailbox: SmtpReceiver) -> None:
    mailbox.password = RIGHT
    with pytest.raises(SinkUnavailable, match="STARTTLS"):
        mail_sink(mailbox, security="starttls", user="alerts", password=RIGHT).send(one())


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["550 no such user", "550 no such user"], MessageRefused),
        (["450 greylisted", "450 greylisted"], SinkUnavailable),
        (["450 greylisted", "550 no such user"], SinkUnavailable),
    ],
)
def test_refused_recipients_park_a_mail_only_for_good(
    mailbox: SmtpReceiver, answers: list[str], kind: type[EngineError]
) -> None:
    mailbox.refusals = answers
    with pytest.raises(kind, match=r"450|550"):
        mail_sink(mailbox).send(one())


def test_one_accepted_recipient_is_enough(mailbox: SmtpReceiver) -> None:
    mailbox.refusals = ["550 no such user"]
    mail_sink(mailbox).send(one())
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_is_told_from_a_sink_that_is_away(
    hook: HttpReceiver, status: int
) -> None:
    hook.answers = [(status, None)]
    with pytest.raises(MessageRefused, match=f"answered {status}"):
        webhook.Webhook(hook.url).send(one())


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 408, 409, 410, 425, 500, 503])
def test_what_is_not_about_the_message_leaves_it_waiting(hook: HttpReceiver, status: int) -> None:
    hook.answers = [(status, None)]
    with pytest.raises(SinkUnavailable, match=f"answered {status}"):
        webhook.Webhook(hook.url).send(one())
    assert not hook.taken


def test_a_sink_that_is_busy_says_for_how_long(hook: HttpReceiver) -> None:
    hook.answers = [(429, "30")]
    with pytest.raises(SinkUnavailable) as caught:
        webhook.Webhook(hook.url).send(one())
    assert caught.value.retry_after_s == 30


def test_a_sink_that_does_not_listen_is_away_and_its_secret_is_not_shown(
    hook: HttpReceiver,
) -> None:
    port = hook.port
    with serving(receivers.webhook()) as other:
        gone = other.port
    assert gone != port
    with pytest.raises(SinkUnavailable, match="no answer") as caught:
        slack.Slack(f"http://user:pw@127.0.0.1:{gone}/services/T0/B0/secret").send(one())
    assert "secret" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_stdout_writes_each_line_with_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    stdout.Stdout().send(one())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"alert incident0:opened {message().title}"
    assert all(line.startswith("alert incident0:opened ") for line in lines)


def lines(path: Path) -> list[str]:
    return [json.loads(line)["key"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_gets_one_line_a_message_that_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "alerts.jsonl"
    sink = file.build({"path": str(path)})
    sink.send(one())
    sink.send(digest(2, summary="a \n line \u2028 of ü"))
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    expected = [message(), *digest(2, summary="a \n line \u2028 of ü").messages]
    assert [Message.from_json(document) for document in read] == expected


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    size = len(json.dumps(message().to_json())) + 1
    sink = file.File(path, max_bytes=2 * size, keep=2)
    for number in range(9):
        sink.send(one(key=f"incident{number}:opened"))
        assert sum(p.stat().st_size for p in tmp_path.glob("alerts.jsonl*")) <= 3 * 2 * size
    kept = [lines(p) for p in (path, tmp_path / "alerts.jsonl.1", tmp_path / "alerts.jsonl.2")]
    assert kept == [[f"incident{n}:opened" for n in some] for some in ((8,), (6, 7), (4, 5))]
    assert not (tmp_path / "alerts.jsonl.3").exists()
    file.File(path, max_bytes=1, keep=0).send(one())
    assert lines(path) == ["incident0:opened"]


def test_a_line_that_a_crash_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"key": "cut o', encoding="utf-8")
    file.File(path).send(one())
    assert path.read_text(encoding="utf-8").splitlines()[0] == '{"key": "cut o'
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["key"] == message().key


def append(path: Path, first: int) -> None:
    sink = file.File(path, max_bytes=40_000, keep=100)
    for number in range(first, first + 40):
        sink.send(one(key=f"incident{number}:opened", **LONG))


def test_lines_of_several_processes_never_mix_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with ProcessPoolExecutor(2) as processes:
        for done in [processes.submit(append, path, first) for first in (0, 40)]:
            done.result()
    files = [p for p in tmp_path.glob("alerts.jsonl*") if p.suffix != ".lock"]
    written = sorted(key for p in files for key in lines(p))
    assert written == sorted(f"incident{n}:opened" for n in range(80))


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(SinkUnavailable, match="cannot write"):
        file.File(tmp_path / "taken" / "alerts.jsonl").send(one())
