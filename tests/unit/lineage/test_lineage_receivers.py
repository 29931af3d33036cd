"""Receivers: how they are named, what they take, and what becomes of it when they do not."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lineage.naming import (
    DatasetName,
    location_name,
    online_name,
    table_name,
    topic_name,
)
from lineage.outbox import Outbox, Waiting
from lineage.receivers import (
    EventRefused,
    FileReceiver,
    HttpReceiver,
    ReceiverAway,
    is_off,
    receivers,
)
from lineage.shipping import ship, ship_soon, standing
from millrace.errors import SetupError
from resources.configuration.secret import Secret
from resources.settings import Settings, settings_from_env
from tests.support.lineage_cases import Receiver

NOW_MS = 1_800_000_000_000


@pytest.fixture
def server() -> Iterator[Receiver]:
    with Receiver().running() as running:
        yield running


def stack(home: Path, lineage: str | None = None) -> Settings:
    return replace(settings_from_env({"MILLRACE_HOME": str(home)}), lineage=lineage)


def told(settings: Settings, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        Outbox.of(settings).add_static({"n": number})


def numbers(server: Receiver) -> list[int]:
    return [event["n"] for event in server.events]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("console", ["console"]),
        ("file:/a/b.jsonl", ["file:/a/b.jsonl"]),
        ("file:///a/b.jsonl", ["file:/a/b.jsonl"]),
        ("http://marquez:5000", ["http://marquez:5000/api/v1/lineage"]),
        (
            "https://user:secret@host/in?token=secret , console",
            ["https://host/in", "console"],
        ),
        (
            "kafka://b1:9092,b2:9092/lineage,http://[::1]:80/x",
            ["kafka://b1:9092,b2:9092/lineage", "http://[::1]:80/x"],
        ),
    ],
)
def test_receivers_are_named_in_one_line_and_show_no_secret(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    assert [r.name for r in receivers(stack(tmp_path, text), timeout_s=1)] == names


@pytest.mark.parametrize(
    "text", ["htp://host", "kafka://host:9092", "http://", "console,none", "x"]
)
def test_a_name_that_says_nothing_is_refused_with_what_would(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupError) as caught:
        receivers(stack(tmp_path, text), timeout_s=1)
    assert caught.value.where == "MILLRACE_LINEAGE"
    assert "kafka://host:port/topic" in caught.value.fix


def test_unset_is_a_file_of_the_stack_and_none_is_nobody(tmp_path: Path) -> None:
    [only] = receivers(stack(tmp_path), timeout_s=1)
    assert only.name == f"file:{tmp_path}/lineage/events.jsonl"
    assert receivers(stack(tmp_path, "none"), timeout_s=1) == []
    assert is_off(stack(tmp_path, " none "))
    assert not is_off(stack(tmp_path))


def test_datasets_are_named_as_other_tools_name_them(tmp_path: Path) -> None:
    local = replace(stack(tmp_path), lake="/lake/")
    remote = replace(local, lake="s3a://bucket/lake")
    assert table_name(local, "events/a") == DatasetName("file", "/lake/events/a")
    assert table_name(remote, "tiles/v/v2") == DatasetName("s3://bucket", "lake/tiles/v/v2")
    assert location_name("/data/2024-*/x.parquet") == DatasetName("file", "/data")
    assert location_name("file:///data/x.csv") == DatasetName("file", "/data/x.csv")
    assert topic_name("b1:9093, b2:9092", "t") == DatasetName("kafka://b1:9093", "t")
    assert topic_name("b1", "t") == DatasetName("kafka://b1:9092", "t")
    assert online_name("redis://u:p@host", "v") == DatasetName("redis://host:6379", "millrace:v")


def test_a_file_keeps_a_line_per_event_also_after_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.jsonl"
    receiver = FileReceiver(path)
    receiver.send(Waiting(1, "", '{"n": 1}'))
    with path.open("a") as file:
        file.write('{"n": 2, "cut')
    receiver.send(Waiting(3, "", '{"n": 3}'))
    lines = path.read_text().splitlines()
    assert [lines[0], lines[2]] == ['{"n": 1}', '{"n": 3}']


def test_a_file_that_cannot_be_written_is_away(tmp_path: Path) -> None:
    with pytest.raises(ReceiverAway, match="directory"):
        FileReceiver(tmp_path).send(Waiting(1, "", "{}"))


def test_the_console_gets_a_line_per_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = stack(tmp_path, "console")
    told(settings, 2)
    ship(settings)
    assert capsys.readouterr().out.splitlines() == ['{"n": 0}', '{"n": 1}']


def test_an_event_has_the_same_key_whenever_it_is_sent(server: Receiver) -> None:
    for _ in range(2):
        HttpReceiver(server.url, 1, None).send(Waiting(1, "", '{"n": 1}'))
    HttpReceiver(server.url, 1, None).send(Waiting(2, "", '{"n": 2}'))
    assert server.keys[0] == server.keys[1] != server.keys[2]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, EventRefused), (422, EventRefused), (401, ReceiverAway), (404, ReceiverAway),
     (429, ReceiverAway), (503, ReceiverAway)],
)  # fmt: skip
def test_only_what_is_wrong_with_the_event_itself_refuses_it(
    server: Receiver, status: int, error: type[Exception]
) -> None:
    server.answers[0] = status
    with pytest.raises(error, match=f"answers {status}"):
        HttpReceiver(server.url, 1, None).send(Waiting(1, "", "{}"))


def test_all_that_waits_is_sent_in_order_and_once(tmp_path: Path, server: Receiver) -> None:
    settings = stack(tmp_path, server.url)
    told(settings, 130)
    [done] = ship(settings)
    assert (done.sent, done.waiting) == (130, 0)
    assert numbers(server) == list(range(130))
    [again] = ship(settings)
    assert again.sent == 0
    assert len(numbers(server)) == 130


def test_an_outage_loses_nothing_and_the_other_receivers_go_on(tmp_path: Path) -> None:
    server = Receiver()
    with server.running():
        pass
    settings = stack(tmp_path, f"{server.url},file:{tmp_path}/copy.jsonl")
    told(settings, 3)
    away, file = ship(settings, now_ms=NOW_MS)
    assert (away.sent, away.waiting, away.away_since_ms) == (0, 3, NOW_MS)
    assert "does not answer" in str(away)
    assert (file.sent, file.waiting, file.error) == (3, 0, "")
    told(settings, 2, first=3)
    with server.running():
        left_alone, _ = ship(settings, now_ms=NOW_MS + 1_999)
        assert not left_alone.was_tried
        assert left_alone.waiting == 5
        back, _ = ship(settings, now_ms=NOW_MS + 2_000)
        assert (back.sent, back.waiting, back.error, back.away_since_ms) == (5, 0, "", None)
    assert numbers(server) == [0, 1, 2, 3, 4]
    assert len((tmp_path / "copy.jsonl").read_text().splitlines()) == 5


def test_a_receiver_that_stays_away_is_tried_less_and_less(tmp_path: Path) -> None:
    settings = stack(tmp_path, "http://127.0.0.1:9/")
    told(settings, 1)
    now_ms, pauses = NOW_MS, []
    for _ in range(8):
        [found] = ship(settings, now_ms=now_ms)
        assert found.was_tried
        at = Outbox.of(settings).receivers([found.name])[found.name]
        pauses.append((at.not_before_ms - now_ms) // 1000)
        now_ms = at.not_before_ms
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert found.away_since_ms == NOW_MS


def test_a_failure_in_the_middle_goes_on_there(tmp_path: Path, server: Receiver) -> None:
    settings = stack(tmp_path, server.url)
    told(settings, 4)
    server.answers[2] = 503
    [done] = ship(settings)
    assert (done.sent, done.waiting) == (2, 2)
    [done] = ship(settings, is_forced=True)
    assert (done.sent, done.waiting) == (2, 0)
    assert numbers(server) == [0, 1, 2, 3]


def test_an_event_that_is_refused_is_parked_and_said(
    tmp_path: Path, server: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    settings = stack(tmp_path, server.url)
    told(settings, 3)
    server.answers[1] = 422
    with caplog.at_level(logging.ERROR):
        [done] = ship(settings)
    assert (done.sent, done.waiting, done.parked) == (2, 0, 1)
    assert "1 refused for good" in str(done)
    assert "event 2" in caplog.text
    assert numbers(server) == [0, 2]


def test_only_one_process_ships(tmp_path: Path, server: Receiver) -> None:
    import fcntl

    settings = stack(tmp_path, server.url)
    told(settings, 1)
    with (settings.home / "lineage" / ".shipping.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ship(settings) == []
    assert numbers(server) == []
    assert len(ship(settings)) == 1


def test_work_that_ended_ships_and_never_fails(
    tmp_path: Path, server: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    settings = stack(tmp_path, server.url)
    told(settings, 1)
    ship_soon(settings)
    assert numbers(server) == [0]
    ship_soon(replace(settings, lineage="gopher://x"))
    assert "names no receiver" in caplog.text


def test_how_it_stands_is_told_without_sending(tmp_path: Path, server: Receiver) -> None:
    settings = stack(tmp_path, server.url)
    assert [s.waiting for s in standing(settings)] == [0]
    told(settings, 2)
    assert [(s.name, s.waiting) for s in standing(settings)] == [
        (f"{server.url}/api/v1/lineage", 2)
    ]
    assert numbers(server) == []


def test_a_secret_for_the_receiver_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    class Guarded(Receiver):
        def take(self, path: str, event: dict[str, object], headers: object) -> int:
            seen.append(headers["Authorization"])  # type: ignore[index]
            return 201

    monkeypatch.setenv("KEY_OF_THE_RECEIVER", "s3cret")
    with Guarded().running() as guarded:
        key = Secret("env:KEY_OF_THE_RECEIVER", "lineage.api_key")
        settings = replace(stack(tmp_path, guarded.url), lineage_api_key=key)
        told(settings, 1)
        [done] = ship(settings)
    assert seen == ["Bearer s3cret"]
    assert "s3cret" not in json.dumps(str(done))


def test_nothing_of_the_client_is_loaded_by_importing_the_hooks() -> None:
    import subprocess

    hooks = (
        "lineage.builds, streaming.control.lineage, streaming.upload.lineage, jobs.instance.lineage, "
        "streaming.archive.lineage, offline.training.lineage, lineage.assertions"
    )
    code = f"import sys, {hooks}; sys.exit('openlineage' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
