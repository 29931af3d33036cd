"""Kafka's properties as Flink's connector takes them, and what of them is written down."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.errors import EngineError, SetupError
from resources.configuration.secret import NO_OPTIONS, Options
from resources.flink.kafka_properties import java_properties, with_access
from resources.settings import settings_from_env
from streaming.control import deployments
from streaming.control.submission import BROKERS
from tests.support.stream_fakes import FakeEngines, FakeFlink, write_views

_PEM = Path(__file__).parents[2] / "certificates" / "localhost.pem"
_CERTIFICATE, _, _KEY = _PEM.read_text().partition("-----BEGIN PRIVATE KEY-----")


def _java(**properties: str) -> dict[str, str]:
    dotted = {name.replace("_", "."): value for name, value in properties.items()}
    return java_properties(Options.of(dotted, "kafka.properties"), NO_OPTIONS)


def test_an_open_kafka_asks_for_nothing() -> None:
    assert java_properties(NO_OPTIONS, NO_OPTIONS) == {}
    assert _java(linger_ms="5", client_id="me") == {}


@pytest.mark.parametrize(
    ("mechanism", "module"),
    [("PLAIN", "plain.PlainLoginModule"), ("scram-sha-512", "scram.ScramLoginModule")],
)
def test_a_user_and_a_password_become_a_line_of_jaas(mechanism: str, module: str) -> None:
    found = _java(
        security_protocol="sasl_ssl",
        sasl_mechanisms=mechanism,
        sasl_username="me",
        sasl_password='a"b\\c',  # noqa: S106 - what must be escaped
    )
    shaded = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"
    assert found == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism.upper(),
        "sasl.jaas.config": rf'{shaded}.{module} required username="me" password="a\"b\\c";',
    }


def test_certificates_become_text_and_only_what_they_are_for(tmp_path: Path) -> None:
    found = java_properties(
        Options.of(
            {
                "security.protocol": "SSL",
                "ssl.ca.location": str(_PEM),
                "ssl.certificate.location": str(_PEM),
                "ssl.key.location": str(_PEM),
                "ssl.key.password": "of the key",
                "ssl.endpoint.identification.algorithm": "none",
                "enable.ssl.certificate.verification": "true",
            },
            "kafka.properties",
        ),
        Options.of({"client.rack": "a"}, "flink.kafka_properties"),
    )
    assert found == {
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": _CERTIFICATE.strip(),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": _CERTIFICATE.strip(),
        "ssl.keystore.key": f"-----BEGIN PRIVATE KEY-----{_KEY}".strip(),
        "ssl.key.password": "of the key",
        "ssl.endpoint.identification.algorithm": "",
        "client.rack": "a",
    }


@pytest.mark.parametrize(
    ("properties", "what", "fix"),
    [
        ({"sasl_mechanism": "GSSAPI"}, "'GSSAPI'", "[flink.kafka_properties]"),
        ({"ssl_curves_list": "x"}, "'ssl.curves.list'", "[flink.kafka_properties]"),
        ({"ssl_ca_location": "/no/such.pem"}, "/no/such.pem", "PEM"),
        ({"ssl_key_pem": "-----BEGIN RSA PRIVATE KEY-----"}, "Java cannot read", "pkcs8"),
        ({"enable_ssl_certificate_verification": "false"}, "always checks", "ssl.ca.location"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_the_way_out(
    properties: dict[str, str], what: str, fix: str
) -> None:
    with pytest.raises(SetupError) as caught:
        _java(**properties)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where.startswith("kafka.properties.")


def test_the_java_clients_own_names_win(tmp_path: Path) -> None:
    own = Options.of({"sasl.jaas.config": "my.Module required;"}, "flink.kafka_properties")
    given = Options.of({"sasl.mechanism": "GSSAPI", "ssl.ca.location": "probe"}, "kafka.properties")
    assert java_properties(given, own) == {"sasl.jaas.config": "my.Module required;"}


def test_the_properties_stand_beside_the_address_in_each_table() -> None:
    script = "WITH ('properties.bootstrap.servers' = '${B}', 'x' = '${B}')"
    told = with_access(script, "${B}", "b:1", {"a.b": "it's"})
    both = "'b:1',\n  'properties.a.b' = 'it''s'"
    assert told == f"WITH ('properties.bootstrap.servers' = {both}, 'x' = {both})"


@pytest.fixture
def engines(tmp_path: Path) -> FakeEngines:
    settings = settings_from_env(
        {
            "MILLRACE_CONFIG": "",
            "MILLRACE_HOME": str(tmp_path),
            "MILLRACE_VIEWS": str(tmp_path / "views"),
            "MILLRACE_KAFKA_PROPERTIES": json.dumps(
                {
                    "security.protocol": "SASL_SSL",
                    "sasl.mechanism": "PLAIN",
                    "sasl.username": "me",
                    "sasl.password": "hunter2",
                }
            ),
        }
    )
    (tmp_path / "runner.jar").write_bytes(b"jar")
    return FakeEngines(settings, FakeFlink(tmp_path / "flink" / "checkpoints"))


def test_flink_is_told_the_password_and_no_record_is(engines: FakeEngines, tmp_path: Path) -> None:
    plan = write_views(tmp_path / "views")
    record = deployments.deploy(engines.settings, plan, "spend", print, engines=engines)
    (submission,) = engines.fake.submissions
    assert 'password="hunter2"' in submission["script"]
    assert BROKERS in record.definition.script
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_another_password_is_the_same_definition(engines: FakeEngines, tmp_path: Path) -> None:
    plan = write_views(tmp_path / "views")
    before = deployments.deploy(engines.settings, plan, "spend", print, engines=engines)
    other = Options.of({"sasl.password": "rotated"}, "kafka.properties")
    later = replace(engines, settings=replace(engines.settings, kafka_properties=other))
    again = deployments.deploy(later.settings, plan, "spend", print, engines=later)
    assert (again.definition, again.fingerprint) == (before.definition, before.fingerprint)


def test_what_flink_quotes_of_a_password_is_masked(engines: FakeEngines, tmp_path: Path) -> None:
    plan = write_views(tmp_path / "views")
    engines.fake.refusal = "cannot connect with password=\"hunter2\" to 'b'"
    with pytest.raises(EngineError) as caught:
        deployments.deploy(engines.settings, plan, "spend", print, engines=engines)
    assert "hunter2" not in str(caught.value)
    assert "cannot connect" in str(caught.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hunter2" in path.read_bytes()]
