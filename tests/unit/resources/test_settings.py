"""``millrace.toml``: found, laid under the environment, checked, and never showing a secret."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.errors import SetupError
from resources.configuration.model import settings_there_are
from resources.configuration.secret import MASK, Secret
from resources.endpoints import kafka_bootstrap, spark_remote, store_url
from resources.lake.options import hadoop_options, storage_options
from resources.settings import (
    Postgres,
    Settings,
    profiles_with_faults,
    settings_from_env,
    settings_shown,
)
from stack.files import Order
from stack.python_parts import archive_part, server_part, writer_part
from stack.variables import changed_variables, environment_of

_FILE = """\
home = "state"
views = ["views", "/shared/views"]
[kafka]
servers = "broker:9093"
[kafka.properties]
security.protocol = "SASL_SSL"
"sasl.password" = "hunter2"
"ssl.ca.location" = "tls/ca.pem"
"linger.ms" = 7
"socket.keepalive.enable" = true
[store]
url = "rediss://store:6380/0"
username = "millrace"
password = "file:passwords/store"
ca_file = "tls/ca.pem"
[profile.prod]
data = "s3a://raw"
[profile.prod.kafka]
servers = "prod:9093"
[profile.prod.kafka.properties]
sasl.password = "env:KAFKA_PASSWORD"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a settings' file, and below it the one that commands are run in."""
    (tmp_path / "millrace.toml").write_text(_FILE)
    (tmp_path / "deep" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "below")
    monkeypatch.delenv("MILLRACE_CONFIG", raising=False)
    return tmp_path


def _refusal(project: Path, text: str, **env: str) -> SetupError:
    (project / "millrace.toml").write_text(text)
    with pytest.raises(SetupError) as caught:
        settings_from_env(env)
    return caught.value


def test_the_file_is_found_upwards_and_its_paths_count_from_it(project: Path) -> None:
    settings = settings_from_env({})
    assert settings.config == project / "millrace.toml"
    assert settings.home == project / "state"
    assert settings.views[1:] == (project / "views", Path("/shared/views"))
    assert settings.lake == str(project / "state" / "lake")
    assert settings.store.ca_file == project / "tls" / "ca.pem"
    assert settings.kafka_properties.reveal() == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "hunter2",
        "ssl.ca.location": str(project / "tls" / "ca.pem"),
        "linger.ms": "7",
        "socket.keepalive.enable": "true",
    }


def test_the_environment_wins_over_the_profile_and_that_over_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "of the shell")
    assert settings_from_env({}).kafka == "broker:9093"
    chosen = settings_from_env({"MILLRACE_PROFILE": "prod"})
    assert (chosen.kafka, chosen.data, chosen.profile) == ("prod:9093", "s3a://raw", "prod")
    revealed = chosen.kafka_properties.reveal()
    assert (revealed["sasl.password"], revealed["linger.ms"]) == ("of the shell", "7")
    env = {
        "MILLRACE_PROFILE": "prod",
        "MILLRACE_KAFKA": "mine:9092",
        "MILLRACE_HOME": "here",
        "MILLRACE_KAFKA_PROPERTIES": '{"linger.ms": 9, "ssl.ca.location": "own.pem"}',
        "MILLRACE_SERVER_PORT": "81",
    }
    won = settings_from_env(env)
    here = project / "deep" / "below"
    assert (won.kafka, won.home, won.data) == ("mine:9092", here / "here", "s3a://raw")
    assert won.server_port == 81
    revealed = won.kafka_properties.reveal()
    assert (revealed["linger.ms"], revealed["ssl.ca.location"]) == ("9", str(here / "own.pem"))


def test_a_file_may_be_named_and_none_may_be_asked_for(project: Path) -> None:
    (project / "other.toml").write_text('[kafka]\nservers = "other:9092"\n')
    assert settings_from_env({"MILLRACE_CONFIG": "../../other.toml"}).kafka == "other:9092"
    assert settings_from_env({"MILLRACE_CONFIG": ""}).kafka is None
    with pytest.raises(SetupError) as caught:
        settings_from_env({"MILLRACE_CONFIG": "gone.toml"})
    assert "gone.toml" in caught.value.where
    assert "MILLRACE_CONFIG" in caught.value.fix


def test_every_unknown_key_is_named_with_its_line_and_the_nearest(project: Path) -> None:
    text = 'hme = "a"\n\n[kafka]\nservrs = "b"\n[stoer]\nurl = "c"\n'
    told = str(_refusal(project, text))
    path = project / "millrace.toml"
    assert "3 faults" in told
    assert f"{path}:1: 'hme' is no setting\n  fix: did you mean 'home'?" in told
    assert f"{path}:4 [kafka]: 'servrs' is no setting of [kafka]" in told
    assert "did you mean 'servers'?" in told
    assert f"{path}:5 [stoer]: 'stoer' is no setting" in told
    assert "did you mean 'store'?" in told


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("home = 7", 1, "'home' is 7"),
        ('views = "views"', 1, "'views' is 'views'"),
        ('kafka = "host:9092"', 1, "'kafka' is 'host:9092'"),
        ("[server]\nport = 70000", 2, "'server.port' is 70000"),
        ('[server]\nport = "eighty"', 2, "'server.port' is 'eighty'"),
        ('lineage = "console"', 1, "'lineage' is 'console'"),
        ('[lineage]\nproducer = "us"', 2, "'lineage.producer' is 'us'"),
        ("[postgres]\nport = -1", 2, "'postgres.port' is -1"),
        ("[kafka]\nproperties = 3", 2, "'kafka.properties' is 3"),
        ("[kafka.properties]\na = [1]", 2, "'kafka.properties.a' is [1]"),
        ("[store]\npassword = 12345", 2, "'store.password' is a int"),
        ("[kafka]\nservers = ", 2, "no TOML"),
        ("profile = 1", 1, "`profile` holds sections"),
    ],
)
def test_a_value_of_another_type_is_shown_with_its_line(
    project: Path, text: str, line: int, what: str
) -> None:
    fault = _refusal(project, text)
    assert fault.where.startswith(f"{project / 'millrace.toml'}:{line}")
    assert what in fault.what
    assert fault.fix
    assert "12345" not in str(fault)


def test_a_section_given_a_value_is_told_its_keys(project: Path) -> None:
    fault = _refusal(project, 'kafka = "host:9092"')
    assert fault.fix == "[kafka] is a section: servers, properties"


@pytest.mark.parametrize("name", ["bootstrap.servers", "group.id", "enable.auto.commit"])
def test_a_property_that_decides_what_is_read_is_the_platforms(project: Path, name: str) -> None:
    fault = _refusal(project, f'[kafka.properties]\n"{name}" = "x"\n')
    assert name in fault.what
    assert fault.where.endswith("millrace.toml:2 [kafka.properties]")


def test_a_profile_that_is_not_there_is_refused_with_the_nearest(project: Path) -> None:
    with pytest.raises(SetupError, match="no profile 'prd'") as caught:
        settings_from_env({"MILLRACE_PROFILE": "prd"})
    assert "'prod'" in caught.value.fix
    with pytest.raises(SetupError, match=r"there is no millrace\.toml"):
        settings_from_env({"MILLRACE_PROFILE": "prod", "MILLRACE_CONFIG": ""})


def test_a_fault_of_a_profile_costs_only_who_chooses_it(project: Path) -> None:
    (project / "millrace.toml").write_text('[profile.a.kafka]\nservrs = "b"\n[profile.b]\n')
    assert settings_from_env({}).kafka is None
    assert settings_from_env({"MILLRACE_PROFILE": "b"}).profile == "b"
    (fault,) = profiles_with_faults({})
    assert "millrace.toml:2 [profile.a.kafka]" in fault.where


def test_each_value_is_shown_with_where_it_came_from_and_no_secret(project: Path) -> None:
    env = {"MILLRACE_PROFILE": "prod", "MILLRACE_LAKE": "lake", "MILLRACE_STORE_USERNAME": "me"}
    shown = {one.key: one for one in settings_shown(env)}
    path = project / "millrace.toml"
    told = {key: (one.value, one.origin, one.where) for key, one in shown.items()}
    assert told["home"] == (str(project / "state"), "file", f"{path}:1")
    assert told["lake.root"] == (str(Path.cwd() / "lake"), "environment", "MILLRACE_LAKE")
    assert told["store.username"][1:] == ("environment", "MILLRACE_STORE_USERNAME")
    assert told["kafka.servers"] == ("prod:9093", "file", f"{path}:19 [profile.prod.kafka]")
    password = told["kafka.properties.sasl.password"]
    section = "[profile.prod.kafka.properties]"
    assert password == ("env:KAFKA_PASSWORD", "file", f"{path}:21 {section}")
    assert told["server.port"] == ("8080", "default", "")
    assert told["spark.token"] == (None, "default", "")
    assert {key for key, _ in told.items() if ".properties." not in key} == {
        *(set(settings_there_are()) - {"kafka.properties"}),
    }


def test_no_form_of_the_settings_shows_a_secret(project: Path) -> None:
    secrets = ("hunter2", "s3cr3t", "t0ken", "pa55")
    env = {
        "MILLRACE_STORE_URL": "redis://u:s3cr3t@h/0",
        "MILLRACE_SPARK_REMOTE": "sc://h:15002/;token=t0ken",
        "MILLRACE_LINEAGE": "https://me:pa55@lineage",
        "MILLRACE_STORE_PASSWORD": "s3cr3t",
        "MILLRACE_LAKE_OPTIONS": '{"aws_secret_access_key": "s3cr3t"}',
        "MILLRACE_SCHEMA_REGISTRY_URL": "https://u:pa55@registry",
    }
    settings = settings_from_env(env)
    forms = [repr(settings), str(settings), repr(settings_shown(env))]
    forms += [repr(kafka_bootstrap(settings)), f"{kafka_bootstrap(settings)}"]
    for form in forms:
        assert not [secret for secret in secrets if secret in form]
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own bytes


# -- where clients connect ------------------------------------------------------------------------


def test_the_address_of_the_store_carries_what_it_asks_for(project: Path) -> None:
    (project / "passwords").mkdir()
    (project / "passwords" / "store").write_text("p@ss/word\n")
    ca = str(project / "tls" / "ca.pem").replace("/", "%2F")
    wanted = f"rediss://millrace:p%40ss%2Fword@store:6380/0?ssl_ca_certs={ca}"
    assert store_url(settings_from_env({})) == wanted
    (project / "passwords" / "store").write_text("rotated")
    assert "millrace:rotated@" in store_url(settings_from_env({}))


def test_a_password_that_is_not_there_is_named_by_its_reference(project: Path) -> None:
    with pytest.raises(SetupError) as caught:
        store_url(settings_from_env({}))
    assert caught.value.where == "store.password"
    assert str(project / "passwords" / "store") in caught.value.what


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://h:1/0", "redis://:pw@h:1/0"),
        ("unix:///run/s.sock?db=1", "unix://:pw@/run/s.sock?db=1"),
        ("redis://old:older@h", "redis://old:pw@h"),
    ],
)
def test_a_password_goes_into_any_kind_of_address(url: str, wanted: str) -> None:
    env = {"MILLRACE_STORE_URL": url, "MILLRACE_STORE_PASSWORD": "pw", "MILLRACE_CONFIG": ""}
    assert store_url(settings_from_env(env)) == wanted
    del env["MILLRACE_STORE_PASSWORD"]
    assert store_url(settings_from_env(env)) == url


@pytest.mark.parametrize("url", ["sc://h:15002", "sc://h:15002/;use_ssl=true"])
def test_the_token_of_spark_goes_into_its_address(url: str) -> None:
    env = {"MILLRACE_SPARK_REMOTE": url, "MILLRACE_SPARK_TOKEN": "abc", "MILLRACE_CONFIG": ""}
    joined = spark_remote(settings_from_env(env))
    assert joined.startswith(url)
    assert joined.endswith(";token=abc")
    assert joined.count("/;") == 1


# -- the stack's parts ----------------------------------------------------------------------------


def test_an_order_names_the_file_and_reads_back_the_same_without_a_secret(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from_env({"MILLRACE_PROFILE": "prod"})
    order = environment_of(settings, {})
    monkeypatch.chdir("/")
    assert settings_from_env(order) == settings
    assert not [text for text in order.values() if "hunter2" in text]
    assert order["MILLRACE_CONFIG"] == str(project / "millrace.toml")
    monkeypatch.chdir(project)
    none = environment_of(settings_from_env({"MILLRACE_CONFIG": ""}), {})
    assert settings_from_env(none).config is None


def test_alerts_lineage_and_their_database_are_settings_like_any_other(project: Path) -> None:
    text = """\
[lineage]
receivers = "console"
api_key = "file:keys/lineage"
[alerts]
file = "ops/alerts.yaml"
[postgres]
host = "db"
password = "hunter2"
[profile.dev.lineage]
namespace = "millrace-dev"
producer = "https://example.com/millrace"
"""
    (project / "millrace.toml").write_text(text)
    own = settings_from_env({})
    assert (own.lineage, own.lineage_namespace) == ("console", "millrace")
    assert own.lineage_api_key == Secret(f"file:{project / 'keys' / 'lineage'}")
    assert own.alerts == project / "ops" / "alerts.yaml"
    assert own.postgres == Postgres("db", password=Secret("hunter2"))
    assert "hunter2" not in repr(own) + repr(environment_of(own, {}))
    dev = {
        "MILLRACE_PROFILE": "dev",
        "MILLRACE_LINEAGE": "none",
        "MILLRACE_LINEAGE_API_KEY": "k3y",
        "MILLRACE_ALERTS": "/etc/alerts.yaml",
        "MILLRACE_PG_PORT": "5433",
        "MILLRACE_PG_DB": "dagster",
        "MILLRACE_PG_USER": "env:WHO",
    }
    other = settings_from_env(dev)
    assert (other.lineage, other.lineage_namespace) == ("none", "millrace-dev")
    assert other.lineage_producer == "https://example.com/millrace"
    assert other.lineage_api_key == Secret("k3y")
    assert other.alerts == Path("/etc/alerts.yaml")
    assert other.postgres == Postgres("db", 5433, "dagster", Secret("env:WHO"), Secret("hunter2"))
    assert _restarted(own, replace(own, lineage_namespace="x")) == {"archive"}


def test_a_part_starts_again_for_what_it_depends_on(project: Path) -> None:
    before = settings_from_env({})
    password = replace(before.store, password=Secret("env:OTHER"))
    assert _restarted(before, replace(before, store=password)) == {"writer", "server"}
    other = settings_from_env({"MILLRACE_KAFKA_PROPERTIES": '{"sasl.password": "another"}'})
    assert _restarted(before, other) == {"writer", "archive"}
    assert _restarted(before, settings_from_env({})) == set()
    lake = settings_from_env({"MILLRACE_LAKE_OPTIONS": '{"aws_region": "x"}'})
    assert _restarted(before, lake) == {"archive"}


def _restarted(before: Settings, after: Settings) -> set[str]:
    old, new = (Order(environment_of(one, os.environ)) for one in (before, after))
    parts = (writer_part(), archive_part(), server_part())
    return {part.name for part in parts if changed_variables(part, old, new)}


def test_a_mask_is_no_reference() -> None:
    assert Secret("plain").shown == MASK
    assert repr(Secret("vault:a/b#c")) == "Secret('vault:a/b#c')"


# -- the lake's object store ----------------------------------------------------------------------


def test_the_options_of_the_lake_reach_both_readers_by_their_names() -> None:
    options = {
        "aws_access_key_id": "AKIA",
        "aws_secret_access_key": "hidden",
        "AWS_ENDPOINT_URL": "http://s3:9000",
        "aws_allow_http": "true",
        "aws_virtual_hosted_style_request": "false",
        "aws_conditional_put": "etag",
        "fs.s3a.fast.upload": "true",
    }
    env = {"MILLRACE_CONFIG": "", "MILLRACE_LAKE_OPTIONS": json.dumps(options)}
    settings = settings_from_env(env)
    own = {n: v for n, v in options.items() if n != "fs.s3a.fast.upload"}
    assert storage_options(settings) == own
    assert hadoop_options(settings.lake_options.reveal()) == {
        "fs.s3a.access.key": "AKIA",
        "fs.s3a.secret.key": "hidden",
        "fs.s3a.endpoint": "http://s3:9000",
        "fs.s3a.connection.ssl.enabled": "false",
        "fs.s3a.path.style.access": "true",
        "fs.s3a.fast.upload": "true",
    }
    assert storage_options(settings_from_env({"MILLRACE_CONFIG": ""})) is None
