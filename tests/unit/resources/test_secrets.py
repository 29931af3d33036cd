"""Secrets by reference: environment, files, and a vault that the test serves itself."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from millrace.errors import EngineUnavailable, PlatformError, SetupError
from resources.configuration.secret import Options, Secret, redacted
from tests.support.background_server import in_background

_TOKEN = "vault-token-of-the-test"  # noqa: S105
_SECRETS = {"/v1/secret/data/millrace/kafka": {"password": "of the vault", "user": "millrace"}}


class _Vault(BaseHTTPRequestHandler):
    """The one request of a KV engine, version 2, as its documentation has it."""

    def do_GET(self) -> None:
        if self.path.endswith("/sealed"):
            return self._answer(503, {"errors": ["Vault is sealed"]})
        if self.headers["X-Vault-Token"] != _TOKEN:
            return self._answer(403, {"errors": ["permission denied"]})
        values = _SECRETS.get(self.path)
        if values is None:
            return self._answer(404, {"errors": []})
        return self._answer(200, {"data": {"data": values, "metadata": {"version": 3}}})

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Vault)
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("VAULT_TOKEN", _TOKEN)
    with in_background(server):
        yield


@pytest.mark.parametrize("path", ["secret/millrace/kafka", "secret/data/millrace/kafka"])
@pytest.mark.usefixtures("vault")
def test_a_field_of_a_vault_is_read(path: str) -> None:
    assert Secret(f"vault:{path}#password").reveal() == "of the vault"


@pytest.mark.parametrize(
    ("place", "what", "fix"),
    [
        ("secret/millrace/kafka#pasword", "has no field 'pasword'", "'password'"),
        ("secret/millrace/kafkq#password", "there is no such secret", "vault kv list"),
        ("secret/millrace/kafka", "does not name a field", "vault:MOUNT/PATH#FIELD"),
    ],
)
@pytest.mark.usefixtures("vault")
def test_what_the_vault_has_not_is_named(place: str, what: str, fix: str) -> None:
    with pytest.raises(SetupError) as caught:
        Secret(f"vault:{place}", "store.password").reveal()
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where == "store.password"
    assert "of the vault" not in str(caught.value)


@pytest.mark.usefixtures("vault")
def test_a_vault_that_refuses_or_is_sealed_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailable, match="503"):
        Secret("vault:secret/sealed#x").reveal()
    monkeypatch.setenv("VAULT_TOKEN", "another")
    with pytest.raises(SetupError, match="the token may not read it") as caught:
        Secret("vault:secret/millrace/kafka#password").reveal()
    assert "another" not in str(caught.value)


def test_a_vault_that_is_away_or_unknown_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = Secret("vault:secret/a#b")
    with pytest.raises(SetupError, match="address of the vault"):
        secret.reveal()
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    with pytest.raises(SetupError, match="token of the vault"):
        secret.reveal()
    (tmp_path / ".vault-token").write_text("abc\n")
    with pytest.raises(EngineUnavailable, match="does not answer") as caught:
        secret.reveal()
    assert caught.value.retryable


def test_a_variable_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ITS_PASSWORD", raising=False)
    secret = Secret("env:ITS_PASSWORD", "store.password")
    with pytest.raises(PlatformError, match="ITS_PASSWORD") as caught:
        secret.reveal()
    assert "export ITS_PASSWORD" in caught.value.fix
    monkeypatch.setenv("ITS_PASSWORD", "later")
    assert secret.reveal() == "later"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_loses_its_last_line_end_alone(tmp_path: Path, end: str) -> None:
    path = tmp_path / "secret"
    path.write_text(f" two\nlines {end}", newline="")
    assert Secret(f"file:{path}").reveal() == " two\nlines "


def test_options_tell_their_secrets_by_name_and_by_form() -> None:
    options = Options.of(
        {"sasl.username": "me", "sasl.password": "abc", "client.id": "env:WHO"}, "kafka.properties"
    )
    assert options.shown() == {
        "sasl.username": "me",
        "sasl.password": "********",
        "client.id": "env:WHO",
    }
    assert "abc" not in repr(options)


def test_a_text_of_somebody_elses_is_shown_without_the_secrets_in_it() -> None:
    assert redacted("abcd and ab", ["ab", "abcd", ""]) == "******** and ********"
