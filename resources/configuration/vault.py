"""A client of a HashiCorp Vault's KV secrets engine, version 2: one GET for one secret.

The server is ``VAULT_ADDR``, the token ``VAULT_TOKEN`` or the file ``~/.vault-token``, the namespace
``VAULT_NAMESPACE``, a certificate authority of its own ``VAULT_CACERT``: the variables of Vault's
own command.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from millrace.errors import EngineUnavailable, SetupError, nearest

_TIMEOUT_S = 10.0
_SERVER_ERRORS = 500
_FORBIDDEN, _NOT_FOUND = 403, 404


def read_secret(place: str, *, key: str) -> str:
    """Return one field of a secret's newest version.

    Args:
        place: ``MOUNT/PATH#FIELD``, as in ``vault kv get -field=FIELD MOUNT/PATH``.
        key: the setting that asks, for messages.

    Raises:
        SetupError: there is no such secret or field, or the token may not read it.
        EngineUnavailable: the server does not answer, or is sealed.
    """
    path, _, field = place.partition("#")
    mount, _, name = path.strip("/").partition("/")
    # The path of the HTTP API, which some write down, has the word that the command leaves out.
    name = name.removeprefix("data/")
    if not (mount and name and field):
        raise SetupError(
            f"'vault:{place}' does not name a field of a secret",
            where=key,
            fix="vault:MOUNT/PATH#FIELD, such as vault:secret/millrace/kafka#password",
        )
    values = _ask(f"/v1/{quote(mount)}/data/{quote(name)}", f"vault:{place}", key)
    if field not in values:
        raise SetupError(
            f"the secret 'vault:{path}' has no field {field!r}",
            where=key,
            fix=nearest(field, list(values)),
        )
    return str(values[field])


def _ask(path: str, shown: str, key: str) -> dict[str, Any]:
    address = os.environ.get("VAULT_ADDR", "").rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise SetupError(
            f"{shown!r} needs the address of the vault",
            where=key,
            fix="export VAULT_ADDR=https://host:8200",
        )
    headers = {"X-Vault-Token": _token(shown, key), "X-Vault-Request": "true"}
    if namespace := os.environ.get("VAULT_NAMESPACE"):
        headers["X-Vault-Namespace"] = namespace
    request = urllib.request.Request(address + path, headers=headers)  # noqa: S310
    context = None
    if address.startswith("https://"):
        context = ssl.create_default_context(cafile=os.environ.get("VAULT_CACERT") or None)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:  # noqa: S310
            values: dict[str, Any] = json.load(answer)["data"]["data"]
    except urllib.error.HTTPError as error:
        raise _refusal(error, shown, key) from error
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"the vault does not answer for {shown!r}: {getattr(error, 'reason', None) or error}",
            where=address,
            fix="see that VAULT_ADDR is right and the server unsealed (`vault status`)",
        ) from error
    return values


def _refusal(error: urllib.error.HTTPError, shown: str, key: str) -> SetupError | EngineUnavailable:
    if error.code >= _SERVER_ERRORS:
        return EngineUnavailable(
            f"the vault answers {error.code} for {shown!r}", where=key, fix="`vault status`"
        )
    told = {
        _FORBIDDEN: ("the token may not read it", "give VAULT_TOKEN a policy that can read it"),
        _NOT_FOUND: ("there is no such secret", "`vault kv list` shows what there is"),
    }
    why, fix = told.get(error.code, (f"it answers {error.code}", "`vault kv get` says more"))
    return SetupError(f"the vault does not give {shown!r}: {why}", where=key, fix=fix)


def _token(shown: str, key: str) -> str:
    if token := os.environ.get("VAULT_TOKEN"):
        return token
    try:
        return (Path.home() / ".vault-token").read_text(encoding="utf-8").strip()
    except (OSError, RuntimeError) as error:
        raise SetupError(
            f"{shown!r} needs a token of the vault",
            where=key,
            fix="export VAULT_TOKEN=…, or `vault login`",
        ) from error
