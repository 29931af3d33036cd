"""The door to the online API: the platform as its own client, for checks and demonstrations.

Values come back as Python has them for their declared types, so that they can be held against
values from elsewhere: instants as epoch milliseconds, decimals exact, dates and bytes as such.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from millrace.calendar import to_datetime, to_ms
from millrace.errors import EngineRejected, EngineUnavailable
from millrace.plan import ViewPlan
from millrace.types import DataType

MOST_KEYS = 5_000
"""The server answers at most this many keys at once."""

_TIMEOUT_S = 30.0

Key = tuple[Any, ...]


@dataclass(frozen=True)
class ServedValue:
    """One feature of one entity, as it was served."""

    value: Any
    ts_ms: int | None
    version: str | None
    status: str


@dataclass(frozen=True)
class ServedEntity:
    """The answer for one key; ``features`` by bare name."""

    key: Key
    status: str
    features: Mapping[str, ServedValue]


@dataclass(frozen=True)
class ServedBatch:
    """One response; every value in it is as of one instant."""

    as_of_ms: int
    entities: tuple[ServedEntity, ...]


def batch_lookup(
    url: str, view: ViewPlan, version: str, keys: Sequence[Key], *, timeout_s: float = _TIMEOUT_S
) -> ServedBatch:
    """Look up all features of one version of a view for some entities.

    Args:
        url: of the online API, without a trailing slash.
        view: which view; its declared types are those of the values.
        version: ``v1``, ``v2``, …; never another one than asked for.
        keys: of each entity the join-key values in declared order; instants as epoch milliseconds.
        timeout_s: for connecting, and for each wait for bytes.

    Raises:
        EngineUnavailable: the server or its store does not answer.
        EngineRejected: the request was refused: the version is not published, or unknown.
    """
    asked = {
        "entity_name": ",".join(entity.name for entity in view.entities),
        "keys": [_key_json(view, key) for key in keys],
        "features": [{"name": f"{view.name}:{f.name}", "version": version} for f in view.outputs],
    }
    answer = _post(f"{url}/v1/features:batchLookup", asked, timeout_s)
    entities = tuple(
        ServedEntity(tuple(key), result["status"], _values(view, result["features"]))
        for key, result in zip(keys, answer["results"], strict=True)
    )
    return ServedBatch(instant_ms(answer["as_of"]), entities)


def _values(view: ViewPlan, found: Mapping[str, Any]) -> dict[str, ServedValue]:
    # Names come back as they were asked for.
    values = {}
    for feature in view.outputs:
        one = found[f"{view.name}:{feature.name}"]
        values[feature.name] = ServedValue(
            value_from_json(one["value"], feature.type),
            None if one["ts"] is None else instant_ms(one["ts"]),
            one["version"],
            one["status"],
        )
    return values


def _key_json(view: ViewPlan, key: Key) -> Any:
    values = {
        entity.join_key: value_to_json(value, entity.type)
        for entity, value in zip(view.entities, key, strict=True)
    }
    return values if len(values) > 1 else next(iter(values.values()))


def value_to_json(value: Any, type_: DataType) -> Any:
    """Return a value as the API's JSON has it."""
    if value is None:
        return None
    if type_.kind == "timestamp":
        moment = to_datetime(value)
        return value if moment is None else moment.isoformat().replace("+00:00", "Z")
    if type_.kind == "date":
        return value.isoformat()
    if type_.kind == "bytes":
        return base64.b64encode(value).decode()
    if type_.kind == "list":
        return [value_to_json(one, type_.values) for one in value]
    return str(value) if type_.kind == "decimal" else value


def value_from_json(value: Any, type_: DataType) -> Any:
    """Return a value of the API's JSON, fractions read as ``Decimal``, in the type's own form."""
    if value is None:
        return None
    readers: dict[str, Callable[[Any], Any]] = {
        "float64": float,
        "decimal": lambda v: Decimal(str(v)),
        "timestamp": lambda v: v if isinstance(v, int) else instant_ms(v),
        "date": date.fromisoformat,
        "bytes": base64.b64decode,
        "list": lambda v: [value_from_json(one, type_.values) for one in v],
    }
    read = readers.get(type_.kind)
    return value if read is None else read(value)


def instant_ms(text: str) -> int:
    """Return an ISO-8601 instant with a zone as epoch milliseconds, floored."""
    return to_ms(datetime.fromisoformat(text))


def _post(url: str, body: Mapping[str, Any], timeout_s: float) -> Any:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    request = Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - our own server
    try:
        with urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return json.loads(response.read(), parse_float=Decimal)
    except HTTPError as error:
        raise _refused(error, url) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise EngineUnavailable(
            f"the online API does not answer: {getattr(error, 'reason', None) or error}",
            where=url,
            fix="millrace up server; millrace logs server",
        ) from error


def _refused(error: HTTPError, url: str) -> EngineRejected | EngineUnavailable:
    """Say what the server said; a server that is busy or without its store may answer later."""
    kind = EngineUnavailable if error.code in {429, 502, 503, 504} else EngineRejected
    try:
        told = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError, OSError):
        return kind(f"the online API answered {error.code} {error.reason}", where=url)
    return kind(
        f"the online API answered {error.code}: {told.get('message')}",
        where=told.get("where") or url,
        fix=told.get("fix") or "",
    )
