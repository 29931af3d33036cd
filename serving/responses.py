"""What answers say, and how values are written in JSON.

Integers of 64 bits are numbers, decimals are plain numbers with all their digits, timestamps are
ISO-8601 with milliseconds and ``Z``, dates ISO, bytes base64, lists arrays of these. A reader of exact decimals, or of
integers beyond 2**53, must not read JSON numbers as doubles.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from millrace.online.answers import Status

KeyStatus = Literal["OK", "PARTIAL", "NOT_FOUND", "INVALID_KEY"]
FeatureStatus = Status | Literal["INVALID_KEY"]


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


class ColumnAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature of all keys: `values[i]` and `ts[i]` are of the key `i`.

    `statuses` are runs, `[status, how many keys]`, left out where every value that is not null is
    PRESENT and every null is a NULL_VALUE. `ts` is left out where the request says
    `"options": {"ts": false}`.
    """

    version: str
    values: Sequence[Any]
    ts: Sequence[str | int | None] | None = None
    statuses: Sequence[tuple[FeatureStatus, int]] | None = None


class ColumnFault(msgspec.Struct, frozen=True):
    """What is wrong with the key at a place, counted from 0."""

    place: int
    message: str
    where: str
    fix: str


class ColumnarAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """All keys in the order asked, and a column per feature, all as of one instant.

    `statuses` are of the keys, as runs, left out where every key with a null is PARTIAL and every
    other OK; `errors` are of those that are INVALID_KEY, left out where none is.
    """

    entity_name: str
    as_of: str | int
    keys: Sequence[Any]
    features: dict[str, ColumnAnswer]
    statuses: Sequence[tuple[KeyStatus, int]] | None = None
    errors: list[ColumnFault] | None = None


class EntityAnswer(msgspec.Struct, frozen=True):
    """The answer about one entity."""

    entity_name: str
    as_of: str | int
    key: Any
    features: dict[str, FeatureAnswer]
    status: KeyStatus
