"""What requests say: bodies of the JSON routes and the parts they share.

Bodies are decoded strictly: an unknown field, a wrong type or broken JSON is a 400 that says where.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from millrace.errors import nearest
from serving.errors import BadRequest, TooLarge

MOST_KEYS = 5_000
"""Keys of one request."""

MOST_FEATURES = 1_000
"""References of one request; a reference may stand for a whole view or service."""

MOST_TIMEOUT_MS = 60_000

Reference = tuple[str, str | None]
"""A feature as asked for, and the version if one was named."""

_FIELD = re.compile(r"field `([^`]*)`")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


class FeatureReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature by name (`feature`, `view:feature`, `view:*`), in a version if one is named."""

    name: str
    version: str | None = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to answer: `timeout_ms` is how long the answer may take before it is a 504.

    `ts: false` leaves the event times out of a columnar answer.
    """

    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=MOST_TIMEOUT_MS)] | None = None
    ts: bool = True


NO_OPTIONS = Options()

Features = str | list[str | FeatureReference]


class LookupBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of one entity (of several for a composite view: `customer,terminal`) and features.

    `features` is a list of references, or a service: `service:fraud_v1`.
    """

    entity_name: str
    keys: list[Any]
    features: Features
    options: Options | None = None


class PinnedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `LookupBody` whose features are left as they were written: the same bytes mean the same."""

    entity_name: str
    keys: list[Any]
    features: msgspec.Raw
    options: Options | None = None


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The simple form: entity type, ids, and names."""

    entity_type: str
    entity_ids: list[Any]
    feature_names: Features


class OnlineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The simple form for one entity: either `entity_id` or a list of one or more `entity_ids`."""

    entity_type: str
    feature_names: Features
    entity_id: Any = None
    entity_ids: list[Any] | None = None


@dataclass(frozen=True)
class Lookup:
    """A parsed request.

    Attributes:
        entity_name: one entity, or several by comma; None: the features say.
        keys: as JSON wrote them.
        features: references in the order asked.
        keys_field: the request's name of the keys, for errors.
        is_strict: one key that is none of the entity fails the request.
    """

    entity_name: str | None
    keys: Sequence[Any]
    features: tuple[Reference, ...]
    options: Options = NO_OPTIONS
    keys_field: str = "keys"
    is_strict: bool = False


_LOOKUP = msgspec.json.Decoder(LookupBody, float_hook=Decimal)
_PINNED = msgspec.json.Decoder(PinnedBody, float_hook=Decimal)
_BATCH = msgspec.json.Decoder(BatchBody, float_hook=Decimal)
_ONLINE = msgspec.json.Decoder(OnlineBody, float_hook=Decimal)


def pinned_body(body: bytes) -> PinnedBody | None:
    """Read the body of ``:lookup`` but for its features; None where ``parse_lookup`` has to look."""
    try:
        asked: PinnedBody = _PINNED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if len(asked.keys) > MOST_KEYS else asked


def parse_lookup(body: bytes) -> Lookup:
    """Read the body of ``:lookup`` and ``:batchLookup``.

    Raises:
        BadRequest: it is not JSON, or not of this form.
        TooLarge: more keys or features than one request may ask for.
    """
    asked: LookupBody = _decoded(_LOOKUP, body)
    options = asked.options or NO_OPTIONS
    return _checked(Lookup(asked.entity_name, asked.keys, references(asked.features), options))


def parse_batch(body: bytes) -> Lookup:
    """Read the body of ``/features/batch``; raises as ``parse_lookup``."""
    asked: BatchBody = _decoded(_BATCH, body)
    features = references(asked.feature_names)
    return _checked(Lookup(asked.entity_type, asked.entity_ids, features, keys_field="entity_ids"))


def parse_online(body: bytes) -> tuple[Lookup, bool]:
    """Read the body of ``/features/online``; True if it asks for one entity; raises as above."""
    asked: OnlineBody = _decoded(_ONLINE, body)
    is_one = asked.entity_ids is None
    if is_one == (asked.entity_id is None):
        raise BadRequest(
            "the body names no entity, or both one and several",
            where="entity_id",
            fix="give either entity_id or entity_ids",
        )
    keys = [asked.entity_id] if asked.entity_ids is None else asked.entity_ids
    field = "entity_id" if is_one else "entity_ids"
    features = references(asked.feature_names)
    return _checked(Lookup(asked.entity_type, keys, features, keys_field=field)), is_one


def references(features: Features) -> tuple[Reference, ...]:
    """Return the references of a request; a text alone may hold several, by comma.

    Raises:
        BadRequest: none is named.
    """
    if isinstance(features, str):
        listed: list[Reference] = [(part.strip(), None) for part in features.split(",")]
    else:
        listed = [(f, None) if isinstance(f, str) else (f.name, f.version) for f in features]
    if not listed or any(not name for name, _ in listed):
        raise BadRequest(
            "a feature without a name is asked for" if listed else "no feature is asked for",
            where="features",
            fix="name features as feature, view:feature, view:* or service:name",
        )
    return tuple(listed)


def _checked(lookup: Lookup) -> Lookup:
    if len(lookup.keys) > MOST_KEYS:
        raise TooLarge(
            f"{len(lookup.keys)} keys are asked for",
            where=lookup.keys_field,
            fix=f"ask for at most {MOST_KEYS} keys at a time",
        )
    if len(lookup.features) > MOST_FEATURES:
        raise TooLarge(
            f"{len(lookup.features)} features are asked for",
            where="features",
            fix=f"ask for at most {MOST_FEATURES} references at a time, or for a service",
        )
    return lookup


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _misformed(str(error), decoder.type) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"the body is not JSON: {error}", where="body", fix="send one JSON object in UTF-8"
        ) from error


def _misformed(told: str, body: type[msgspec.Struct]) -> BadRequest:
    place = _PLACE.search(told)
    field = _FIELD.search(told)
    known = list(body.__struct_fields__)
    where = place[1] if place else "body"
    fix = f"the fields are {', '.join(known)}; see /docs"
    if field and "unknown" in told and not place:
        fix = nearest(field[1], known)
    return BadRequest(f"the body does not fit: {_PLACE.sub('', told)}", where=where, fix=fix)


def query_parameters(query: Mapping[str, str], known: Sequence[str]) -> Mapping[str, str]:
    """Return the query parameters of a GET.

    Raises:
        BadRequest: one is unknown; the nearest is named.
    """
    for name in query:
        if name not in known:
            raise BadRequest(
                f"unknown query parameter {name!r}", where="query", fix=nearest(name, known)
            )
    return query
