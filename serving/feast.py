"""Feast's protocol: what its SDK asks of a feature server, as lookups of this one.

``POST /get-online-features`` takes keys as columns and answers in columns. What a value is, its
event time and its status are those of every other lookup; here they are only written as Feast 0.67
writes them. Writing and materializing are refused with the way to do it here.

Source: Feast's ``feature_server.py``, ``feature_server_utils.py`` and the client to both,
``infra/online_stores/remote.py``.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import msgspec

from millrace.errors import NotDeclared, PlatformError, nearest
from millrace.online.answers import Answer, Status
from millrace.types import DataType
from serving.catalog import Catalog, LookupPlan
from serving.engine import LookupResult
from serving.errors import BadRequest, TooLarge
from serving.instants import instant_text
from serving.lookups import KEYS_AT_ONCE, Lookups
from serving.rendering import Masks, Write, writer_of
from serving.requests import MOST_FEATURES, MOST_KEYS, Reference

FeastStatus = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]

_STATUSES: Mapping[Status, FeastStatus] = {
    "PRESENT": "PRESENT",
    "NULL_VALUE": "NULL_VALUE",
    "NOT_FOUND": "NOT_FOUND",
    "OUTSIDE_MAX_AGE": "OUTSIDE_MAX_AGE",
    "STALE": "PRESENT",
    "OVER_LIMIT": "PRESENT",
}
"""For the last two Feast has no word."""

_NO_INSTANT = "1970-01-01T00:00:00Z"
_EPOCH = date(1970, 1, 1)
_VERSIONED = re.compile(r"(.+)@(?:(?i:latest)?|[vV](\d+))")


_Part = tuple[str, str, str, str | None]
"""The view as asked for, its name, the feature and the version of ``view@v2:feature``."""


class OnlineFeaturesBody(msgspec.Struct, frozen=True):
    """Keys as columns by join key, and features as `view:feature`, or a service.

    A field that is not known is passed over, as Feast does.
    """

    entities: dict[str, list[Any]]
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class FeatureVector(msgspec.Struct, frozen=True):
    """A column of the answer; `event_timestamps` of a join key, or of no event, are 1970."""

    values: list[Any]
    statuses: list[FeastStatus]
    event_timestamps: list[str]


class ViewVersion(msgspec.Struct, frozen=True):
    """A view that was asked for, and its version's number."""

    name: str
    version: int


class OnlineFeaturesMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names of the columns; the versions of the views if they were asked for."""

    feature_names: list[str]
    feature_view_metadata: list[ViewVersion] | None = None


class OnlineFeaturesAnswer(msgspec.Struct, frozen=True):
    """The join keys as columns, then the features, in the order asked."""

    metadata: OnlineFeaturesMetadata
    results: list[FeatureVector]


MODELS = (OnlineFeaturesBody, OnlineFeaturesAnswer)

_DECODER = msgspec.json.Decoder(OnlineFeaturesBody, float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def parse_body(body: bytes) -> OnlineFeaturesBody:
    """Read the body of ``/get-online-features``.

    Raises:
        ValueError: it is not JSON, or not of this form.
    """
    try:
        asked: OnlineFeaturesBody = _DECODER.decode(body)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return asked


async def answered(
    lookups: Lookups, body: OnlineFeaturesBody, authorization: bytes | None
) -> bytes:
    """Return the JSON of an ``OnlineFeaturesAnswer``.

    Args:
        lookups: of the server.
        body: the request.
        authorization: its header.

    Raises:
        BadRequest: columns of different lengths, a missing join key, a key that is not of its type, a
            reference that is none, two features of one name.
        NotDeclared: an unknown view, feature, version or service.
        PlatformError: as of any lookup.
    """
    decision = lookups.access(authorization)
    catalog = lookups.known()
    references, names = _features(catalog, body)
    views = dict.fromkeys(name.partition(":")[0] for name, _ in references)
    entities = dict.fromkeys(
        e for v in views if v in catalog.views for e in catalog.views[v].entities
    )
    plan = catalog.lookup_plan(",".join(entities) or None, references)
    columns = _columns(catalog, plan, body.entities)
    result = await lookups.engine.lookup(
        plan,
        _keys(plan, columns),
        lookups.plans.progress_ms,
        "entities",
        is_strict=True,
    )
    vectors = await _vectors(result, decision.masks)
    keys = [
        FeatureVector(column, ["PRESENT"] * len(column), [_NO_INSTANT] * len(column))
        for column in columns.values()
    ]
    versions = None
    if body.include_feature_view_version_metadata:
        versions = [
            ViewVersion(read.served.online.name, int(read.served.version.lstrip("v")))
            for read in plan.reads
        ]
    metadata = OnlineFeaturesMetadata([*columns, *names], versions)
    return _ENCODER.encode(OnlineFeaturesAnswer(metadata, [*keys, *vectors]))


def _features(
    catalog: Catalog, body: OnlineFeaturesBody
) -> tuple[tuple[Reference, ...], list[str]]:
    """Return what is asked for, and what the answer calls it."""
    if body.feature_service:
        if body.feature_service not in catalog.services:
            raise NotDeclared(
                f"no feature service {body.feature_service!r}",
                where="feature_service",
                fix=nearest(body.feature_service, list(catalog.services)),
            )
        parts: list[_Part] = [
            (view, view, f, None) for view, f in catalog.services[body.feature_service]
        ]
    else:
        parts = [_parted(reference) for reference in body.features]
    if not parts:
        raise BadRequest(
            "no feature is asked for", where="features", fix="name features as view:feature"
        )
    if len(parts) > MOST_FEATURES:
        raise TooLarge(
            f"{len(parts)} features are asked for",
            where="features",
            fix=f"ask for at most {MOST_FEATURES} at a time",
        )
    is_full = body.full_feature_names
    names = [f"{shown}__{f}" if is_full else f for shown, _, f, _ in parts]
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise BadRequest(
            f"the answer would have two features named {twins[0]!r}",
            where="features",
            fix="ask for each once" + ("" if is_full else ", or with full_feature_names"),
        )
    return tuple((f"{view}:{f}", version) for _, view, f, version in parts), names


def _parted(reference: str) -> _Part:
    shown, _, feature = reference.partition(":")
    if not shown or not feature or feature == "*":
        raise BadRequest(
            f"{reference!r} is no reference", where="features", fix="write view:feature"
        )
    versioned = _VERSIONED.fullmatch(shown)
    if versioned is None:
        return shown, shown, feature, None
    view, number = versioned.groups()
    version = None if number is None else f"v{number}"
    return view if version is None else f"{view}@{version}", view, feature, version


def _columns(
    catalog: Catalog, plan: LookupPlan, given: Mapping[str, list[Any]]
) -> dict[str, list[Any]]:
    """Return the columns of join keys, in the order given; other columns are passed over.

    A column may be named by the entity instead of its join key.
    """
    lengths = {name: len(column) for name, column in given.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise BadRequest(
            f"the columns differ in length: {told}",
            where="entities",
            fix="give every column one value a row",
        )
    needed = {name for name, _ in plan.join_keys}
    columns = dict(given)
    if set(given) != needed:
        by_entity = {
            entity: name
            for view in catalog.views.values()
            if view.shown is not None
            for entity, (name, _) in zip(view.entities, view.shown.online.join_keys, strict=True)
        }
        known = set(by_entity.values())
        meant = {name: name if name in known else by_entity.get(name) for name in given}
        columns = {join_key: given[name] for name, join_key in meant.items() if join_key}
    for name in [name for name, _ in plan.join_keys if name not in columns]:
        raise BadRequest(
            f"there is no column {name}", where="entities", fix=nearest(name, list(given))
        )
    if max(lengths.values()) > MOST_KEYS:
        raise TooLarge(
            f"{max(lengths.values())} keys are asked for",
            where="entities",
            fix=f"ask for at most {MOST_KEYS} keys at a time",
        )
    return columns


def _keys(plan: LookupPlan, columns: Mapping[str, list[Any]]) -> Sequence[Any]:
    names = [name for name, _ in plan.join_keys]
    if len(names) == 1:
        return columns[names[0]]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


async def _vectors(result: LookupResult, masks: Masks) -> list[FeatureVector]:
    """Return the columns of the features, in the order asked."""
    plan = result.plan
    by_read: list[list[Sequence[Answer]]] = []
    for read, cells, progress_ms in zip(plan.reads, result.cells, result.progress_ms, strict=True):
        online = read.served.online
        moment = online.at(result.as_of_ms, progress_ms, read.places)
        absent = online.absent(result.as_of_ms, read.places)
        answers: list[Sequence[Answer]] = []
        for number, cell in enumerate(cells, start=1):
            row = None if cell is None else cell.row
            answers.append(absent if row is None else moment.answer(row))
            if number % KEYS_AT_ONCE == 0:
                await asyncio.sleep(0)
        by_read.append(answers)
    vectors = []
    for _, read_place, place in plan.fields:
        read = plan.reads[read_place]
        online = read.served.online
        feature = online.features[read.places[place]]
        write = masks.get((online.name, feature.name)) or _writer_of(feature.type)
        vectors.append(_vector([answers[place] for answers in by_read[read_place]], write))
        await asyncio.sleep(0)
    return vectors


def _vector(column: Sequence[Answer], write: Write | None) -> FeatureVector:
    values = [v if v is None or write is None else write(v) for v, _, _ in column]
    return FeatureVector(
        values,
        [_status_of(v, status) for v, (_, _, status) in zip(values, column, strict=True)],
        [_NO_INSTANT if ts_ms is None else _timestamp(ts_ms) for _, ts_ms, _ in column],
    )


def _status_of(value: Any, status: Status) -> FeastStatus:
    told = _STATUSES[status]
    return "NULL_VALUE" if value is None and told == "PRESENT" else told


def _timestamp(ts_ms: int) -> str:
    """Return an instant as protobuf's JSON has it: milliseconds only where there are some."""
    text = instant_text(ts_ms)
    if not isinstance(text, str):
        return _NO_INSTANT  # outside the years that a timestamp of protobuf has
    return text.removesuffix(".000Z") + "Z" if text.endswith(".000Z") else text


_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "decimal": lambda value: format(value, "f"),
    "timestamp": lambda instant_ms: instant_ms // 1000,
    "date": lambda day: (day - _EPOCH).days * 86_400,
}
"""Values that Feast writes otherwise: its timestamps have seconds, and dates are timestamps."""


def _writer_of(type_: DataType) -> Write | None:
    write = writer_of(type_, _WRITERS)
    if type_.kind != "list":
        return write
    # Feast's client fails as a whole on an empty list, as it guesses types from values.
    return lambda values: (values if write is None else write(values)) or None


def kind_of(error: PlatformError, catalog: Catalog, body: OnlineFeaturesBody) -> str:
    """Return the name of Feast's own error for one; its client raises that."""
    if not isinstance(error, NotDeclared):
        return "FeastError"
    if body.feature_service:
        is_known = body.feature_service in catalog.services
        return "FeatureViewNotFoundException" if is_known else "FeatureServiceNotFoundException"
    parts = [_parted(reference) for reference in body.features]
    if any(view not in catalog.views for _, view, _, _ in parts):
        return "FeatureViewNotFoundException"
    if any(version and version not in catalog.views[v].versions for _, v, _, version in parts):
        return "FeatureViewVersionNotFound"
    return "FeastObjectNotFoundException"
