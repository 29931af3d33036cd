"""What ``doctor`` and ``up`` say of alerts, lineage, and variables that nobody reads."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from millrace.errors import SetupError
from resources.endpoints import kafka_bootstrap
from resources.kafka import client as kafka
from resources.kafka.brokers import Brokers
from resources.lake.delta import open_table, own_files, rs_path, table_version
from resources.settings import settings_from_env
from stack.configured import examine_configuration
from stack.control import Stack
from stack.doctor import examine
from stack.finding import Finding

ALERTS = """\
version: millrace-alerts/v1
sinks:
  chat: {type: slak, url: "${CHAT_URL}"}
  hook: {type: webhook, url: "${MILLRACE_HOOK_URL}"}
  log: {type: stdout}
renotfy: 1d
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MILLRACE_LINEAGE", "MILLRACE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def odd(**environ: str) -> list[Finding]:
    settings = settings_from_env()
    return [one for one in examine_configuration(settings, environ) if one.verdict != "ok"]


def test_every_fault_of_the_alerts_file_is_told_with_its_place_and_its_mend(folder: Path) -> None:
    (folder / "millrace.toml").write_text('[alerts]\nfile = "alerts.yaml"\n')
    [missing] = odd()
    assert missing.verdict == "fail"
    assert missing.detail.startswith(f"{folder / 'millrace.toml'}:2 [alerts]: cannot read")
    (folder / "alerts.yaml").write_text(ALERTS)
    type_, key = odd()
    assert type_.detail == f"{folder / 'alerts.yaml'}:3: there is no sink type 'slak'"
    assert "slack" in type_.fix
    assert "'renotify'" in key.fix
    (folder / "alerts.yaml").write_text(ALERTS.replace("slak", "slack").replace("notfy", "notify"))
    chat, hook = odd()
    assert (chat.verdict, hook.verdict) == ("warn", "warn")
    assert "CHAT_URL, which is not set" in chat.detail
    assert odd(CHAT_URL="http://chat", MILLRACE_HOOK_URL="http://hook") == []


def test_receivers_of_lineage_are_judged_without_being_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "millrace.toml").write_text('[lineage]\n\nreceivers = "htp://host"\n')
    [fault] = odd()
    assert fault.detail.startswith(f"{folder / 'millrace.toml'}:3 [lineage]: 'htp://host' names no")
    assert "http(s)://host/path" in fault.fix
    (folder / "taken").mkdir()
    monkeypatch.setenv("MILLRACE_LINEAGE", f"http://127.0.0.1:1,file:{folder / 'taken'}")
    monkeypatch.setenv("MILLRACE_LINEAGE_API_KEY", "env:NO_SUCH_KEY")
    file, key = odd()
    assert "it is a folder" in file.detail
    assert key.detail.startswith("lineage.api_key: 'env:NO_SUCH_KEY'")


@pytest.mark.parametrize("name", ["a%41b", "a[1]", "a^b", "a|b", "a\\b"])
def test_a_lake_that_delta_rs_does_not_find_is_refused_at_the_start(
    folder: Path, name: str
) -> None:
    (folder / "millrace.toml").write_text(f"[lake]\nroot = '{folder / name}'\n")
    [fault] = odd()
    assert fault.subject == "lake"
    assert f"{folder / 'millrace.toml'}:2 [lake]: no table can be kept in" in fault.detail
    with pytest.raises(SetupError, match="means something else to delta-rs"):
        table_version(settings_from_env(), "events/x")


@pytest.mark.parametrize("name", ["plain", "a b", "ä", "a#b?c", "100%", "a:b", "a*", "a{<'b'>}"])
def test_a_lake_of_any_other_name_is_written_and_read(folder: Path, name: str) -> None:
    settings = replace(settings_from_env(), lake=str(folder / name / "lake"))
    write_deltalake(rs_path(settings, "events/x"), pa.table({"a": [1]}))
    table = open_table(settings, "events/x")
    assert table is not None
    assert table.to_pyarrow_table(filesystem=own_files(table)).num_rows == 1
    assert (folder / name / "lake" / "events" / "x" / "_delta_log").is_dir()


def test_a_variable_that_nobody_reads_is_told_with_the_nearest(folder: Path) -> None:
    (folder / "millrace.toml").write_text(
        '[kafka]\nservers = "k:9092"\n[kafka.properties]\n"sasl.password" = "env:MILLRACE_OF_KAFKA"\n'
        '[alerts]\nfile = "alerts.yaml"\n'
    )
    (folder / "alerts.yaml").write_text("version: millrace-alerts/v1\nsinks: {a: {type: stdout}}\n")
    far, near = odd(
        MILLRACE_STOER_URL="redis://h",
        MILLRACE_QQQ="1",
        MILLRACE_OF_KAFKA="secret",
        MILLRACE_PG_HOST="db",
        MILLRACE_LAKE_ACCESS="of an order",
        HOME="/",
    )
    assert far == Finding(
        "settings", "warn", "MILLRACE_QQQ is set, and nothing reads it", "unset MILLRACE_QQQ"
    )
    assert near.fix == "did you mean MILLRACE_STORE_URL?"


def test_doctor_names_the_line_where_an_address_stands(folder: Path) -> None:
    (folder / "millrace.toml").write_text(
        'data = "gone"\n[store]\nurl = "redis://127.0.0.1:1"\n[profile.x]\nhme = "y"\n'
    )
    found = {one.subject: one for one in examine(Stack(settings_from_env()))}
    file = folder / "millrace.toml"
    assert found["store"].fix == f"start it, or correct {file}:3 [store]"
    assert found["MILLRACE_DATA"].fix.endswith(f"correct {file}:1")
    assert any("'hme' is no setting" in one.detail for one in examine(Stack(settings_from_env())))


def test_a_misspelt_property_of_kafka_is_told_with_the_nearest_and_its_line(folder: Path) -> None:
    (folder / "millrace.toml").write_text(
        '[kafka]\nservers = "k:9092"\n[kafka.properties]\n"securty.protocol" = "SSL"\n'
    )
    brokers = kafka_bootstrap(settings_from_env())
    assert isinstance(brokers, Brokers)
    with pytest.raises(SetupError) as caught:
        kafka.producer(brokers)
    assert "securty.protocol" in caught.value.what
    assert caught.value.where == f"{folder / 'millrace.toml'}:4 [kafka.properties]"
    assert caught.value.fix == "did you mean 'security.protocol'?"
