"""What answers say, and how values are written in JSON.

Integers of 64 bits are numbers, decimals are plain numbers with all their digits, timestamps are
ISO-8601 with milliseconds and ``Z``, dates ISO, bytes base64, lists arrays of these. A reader of exact decimals, or of
integers beyond 2**53, must not read JSON numbers as doubles.
"""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import msgspec

from millrace.online.answers import Answer, Status
from millrace.types import DataType
from serving.catalog import LookupPlan
from serving.engine import LookupResult
from serving.errors import BadRequest
from serving.instants import instant_text

KeyStatus = Literal["OK", "PARTIAL", "NOT_FOUND", "INVALID_KEY"]
FeatureStatus = Status | Literal["INVALID_KEY"]

_KEYS_AT_ONCE = 200
"""Keys rendered between two chances for other requests."""


class FeatureAnswer(msgspec.Struct, frozen=True):
    """A value, the event time of the newest event in its window, its version and its status."""

    value: Any
    ts: str | int | None
    version: str
    status: FeatureStatus


class KeyFault(msgspec.Struct, frozen=True):
    """What is wrong with a key, and what would be right."""

    message: str
    where: str
    fix: str


class KeyAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The features of one key, by the names they were asked by.

    `status`: OK; PARTIAL if some feature has no value; NOT_FOUND if the entity is unknown;
    INVALID_KEY if the key is none of the entity, and then `error` says why.
    """

    key: Any
    features: dict[str, FeatureAnswer]
    status: KeyStatus
    error: KeyFault | None = None


class LookupAnswer(msgspec.Struct, frozen=True):
    """One result per key, in the order asked, all as of one instant."""

    entity_name: str
    as_of: str | int
    results: list[KeyAnswer]


class EntityAnswer(msgspec.Struct, frozen=True):
    """The answer about one entity."""

    entity_name: str
    as_of: str | int
    key: Any
    features: dict[str, FeatureAnswer]
    status: KeyStatus


_ENCODER = msgspec.json.Encoder(decimal_format="number")


async def lookup_body(result: LookupResult) -> bytes:
    """Return the JSON of a lookup of any number of keys."""
    as_of = instant_text(result.as_of_ms)
    return _ENCODER.encode(LookupAnswer(result.plan.entity_name, as_of, await _key_answers(result)))


async def entity_body(result: LookupResult) -> bytes:
    """Return the JSON of a lookup of one key."""
    (only,) = await _key_answers(result)
    as_of = instant_text(result.as_of_ms)
    return _ENCODER.encode(
        EntityAnswer(result.plan.entity_name, as_of, only.key, only.features, only.status)
    )


async def _key_answers(result: LookupResult) -> list[KeyAnswer]:
    writer = _Writer(result)
    answers = []
    for place, key in enumerate(result.keys):
        answers.append(writer.key_answer(place, key))
        if place % _KEYS_AT_ONCE == _KEYS_AT_ONCE - 1:
            await asyncio.sleep(0)
    return answers


class _Writer:
    """Writes the keys of one result; what does not differ between keys is looked at once."""

    def __init__(self, result: LookupResult) -> None:
        self._fields = _fields_of(result.plan)
        self._invalid = result.invalid
        self._reads = [
            (
                cells,
                read.served.online.at(result.as_of_ms, progress_ms, read.places),
                read.served.online.absent(result.as_of_ms, read.places),
            )
            for read, cells, progress_ms in zip(
                result.plan.reads, result.cells, result.progress_ms, strict=True
            )
        ]

    def key_answer(self, place: int, key: Any) -> KeyAnswer:
        if place in self._invalid:
            return self._invalid_answer(key, self._invalid[place])
        answers: list[Answer] = []
        for cells, moment, absent in self._reads:
            cell = cells[place]
            row = None if cell is None else cell.row
            answers += absent if row is None else moment.answer(row)
        features = {}
        last_ms: int | None = None
        last_text: str | int | None = None
        for label, at, write, version in self._fields:
            value, ts_ms, status = answers[at]
            if ts_ms != last_ms:
                last_ms, last_text = ts_ms, None if ts_ms is None else instant_text(ts_ms)
            if write is not None and value is not None:
                value = write(value)
            features[label] = FeatureAnswer(value, last_text, version, status)
        return KeyAnswer(key, features, _key_status(answers))

    def _invalid_answer(self, key: Any, error: BadRequest) -> KeyAnswer:
        features = {
            label: FeatureAnswer(None, None, version, "INVALID_KEY")
            for label, _, _, version in self._fields
        }
        fault = KeyFault(error.what, error.where, error.fix)
        return KeyAnswer(key, features, "INVALID_KEY", fault)


def _key_status(answers: list[Answer]) -> KeyStatus:
    statuses = {status for _, _, status in answers}
    if statuses == {"NOT_FOUND"}:
        return "NOT_FOUND"
    return "PARTIAL" if statuses & {"NOT_FOUND", "NULL_VALUE", "OVER_LIMIT"} else "OK"


def _plain_number(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(format(value, "f").encode())


_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "decimal": _plain_number,
    "timestamp": instant_text,
}


def _writer_of(type_: DataType) -> Callable[[Any], Any] | None:
    """Return how values of a type are written; None: as they are."""
    if type_.kind != "list":
        return _WRITERS.get(type_.kind)
    write = _writer_of(type_.values)
    return None if write is None else lambda values: [write(value) for value in values]


_Field = tuple[str, int, Callable[[Any], Any] | None, str]


@lru_cache(maxsize=1024)
def _fields_of(plan: LookupPlan) -> list[_Field]:
    """Return of each feature asked for: label, place among all answers, how to write it, version."""
    before = [sum(len(read.places) for read in plan.reads[:i]) for i in range(len(plan.reads))]
    fields = []
    for label, i, place in plan.fields:
        served = plan.reads[i].served
        type_ = served.online.features[plan.reads[i].places[place]].type
        fields.append((label, before[i] + place, _writer_of(type_), served.version))
    return fields
