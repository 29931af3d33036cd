"""The setup behind a proxy that inspects TLS, with a certificate of the tests' own."""

import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import truststore

from millrace.errors import SetupError
from resources.jvm.jars import Jar
from resources.settings import CHECKOUT
from stack import bootstrap
from stack.jars import fetch
from stack.trust import environment_of_tools, trusting_context
from tests.support.inspecting_proxy import (
    AUTHORITY,
    HASHED_NAME,
    InspectingProxy,
    inspecting_proxy,
)

_CONTENT = b"not really a jar"
_JAR = Jar("org.example:thing:1.0", hashlib.sha256(_CONTENT).hexdigest(), len(_CONTENT), "delta")
_WHEEL = f"uv-{bootstrap.UV_VERSION}-py3-none-any.whl"


def _wheel() -> bytes:
    """Return a package called uv, whose program does nothing."""
    name, buffer = f"uv-{bootstrap.UV_VERSION}", io.BytesIO()
    files = {
        f"{name}.data/scripts/uv": "#!/bin/sh\n",
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: uv\nVersion: {name[3:]}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(buffer, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return buffer.getvalue()


@pytest.fixture
def proxy() -> Iterator[InspectingProxy]:
    files = {
        "/maven/org/example/thing/1.0/thing-1.0.jar": _CONTENT,
        "/simple/uv/": f'<a href="/files/{_WHEEL}">{_WHEEL}</a>'.encode(),
        f"/files/{_WHEEL}": _wheel(),
    }
    with inspecting_proxy(files) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of certificates, as a machine's store is one."""
    store = tmp_path / "store"
    store.mkdir()
    shutil.copy(AUTHORITY, store / HASHED_NAME)
    return store


def _fetch(proxy: InspectingProxy, cache: Path) -> bytes:
    (path,) = fetch(cache, [_JAR], repository=f"{proxy.host}/maven")
    return path.read_bytes()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"])
def test_jars_come_through_with_a_bundle_that_is_named(
    proxy: InspectingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy.stand_before(monkeypatch, **{variable: str(AUTHORITY)})
    assert _fetch(proxy, tmp_path) == _CONTENT
    assert proxy.asked == [f"/maven/{_JAR.path_in_repository}"]


def test_jars_come_through_with_a_folder_of_certificates(
    proxy: InspectingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    proxy.stand_before(monkeypatch, SSL_CERT_DIR=str(folder))
    assert _fetch(proxy, tmp_path) == _CONTENT


def test_without_a_variable_the_machines_store_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    assert isinstance(trusting_context(), truststore.SSLContext)
    assert environment_of_tools({}) == {"UV_SYSTEM_CERTS": "true"}


def test_a_certificate_that_nobody_trusts_is_told_once_with_the_mend(
    proxy: InspectingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.stand_before(monkeypatch)
    with pytest.raises(SetupError) as caught:
        _fetch(proxy, tmp_path)
    assert "CERTIFICATE_VERIFY_FAILED" in caught.value.what
    assert "update-ca-certificates" in caught.value.fix
    assert "SSL_CERT_FILE=" in caught.value.fix
    assert proxy.asked == []


def test_a_bundle_that_is_not_there_is_named_and_not_the_cache(
    proxy: InspectingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.stand_before(monkeypatch, SSL_CERT_FILE="/no/such/bundle.pem")
    with pytest.raises(SetupError, match=r"/no/such/bundle\.pem") as caught:
        _fetch(proxy, tmp_path)
    assert "SSL_CERT_FILE" in caught.value.fix


def test_pip_and_uv_trust_the_same_and_what_is_set_stays() -> None:
    tools = environment_of_tools({"REQUESTS_CA_BUNDLE": "/a.pem", "PIP_CERT": "/b.pem"})
    assert tools == {
        "UV_SYSTEM_CERTS": "true",
        "SSL_CERT_FILE": "/a.pem",
        "REQUESTS_CA_BUNDLE": "/a.pem",
        "PIP_CERT": "/b.pem",
    }


def test_pip_installs_uv_through_the_proxy(
    proxy: InspectingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.stand_before(monkeypatch, SSL_CERT_FILE=str(AUTHORITY))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{proxy.host}/simple")
    uv = bootstrap.install_uv(tmp_path)
    assert uv == tmp_path / "uv" / bootstrap.UV_VERSION / "bin" / "uv"
    assert uv.read_text() == "#!/bin/sh\n"


def test_uv_installs_through_the_proxy_with_what_the_setup_gives_it(
    proxy: InspectingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.stand_before(monkeypatch, REQUESTS_CA_BUNDLE=str(AUTHORITY))
    uv = bootstrap.install_uv(bootstrap.cache_folder())  # there since the tests' own setup
    settings = bootstrap._uv_settings(CHECKOUT, tmp_path) | {"UV_NO_CONFIG": "1"}
    place = ["--target", str(tmp_path / "installed"), "--python", sys.executable]
    index = ["--index-url", f"{proxy.host}/simple"]
    command = [str(uv), "pip", "install", "--no-deps", *place, *index, "uv"]
    bootstrap._run(command, CHECKOUT, settings)
    assert list((tmp_path / "installed").glob("uv-*.dist-info"))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(bootstrap.Trouble, match="SSL_CERT_FILE="):
        bootstrap._run([*command, "--refresh", "--reinstall"], CHECKOUT, settings)
