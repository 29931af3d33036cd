"""Answers by feature instead of by key: an array of values for each, and what differs between keys.

Nearly all that a row of an answer repeats is the same for every key: name, version, status, often
``ts``. A column says it once, and rows that were read become columns by one ``zip``.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby, repeat
from typing import Any, NamedTuple, TypeVar

import msgspec

from millrace.online.answers import Answer
from serving.errors import BadRequest
from serving.instants import instant_text
from serving.rendering import (
    ENCODER,
    Instant,
    KeyRenderer,
    RowRead,
    Write,
    key_status,
    writer_of,
)
from serving.responses import (
    ColumnAnswer,
    ColumnarAnswer,
    ColumnFault,
    FeatureAnswer,
    FeatureStatus,
    KeyAnswer,
    KeyFault,
    KeyStatus,
    LookupAnswer,
)

Told = TypeVar("Told", KeyStatus, FeatureStatus)

KeyTold = tuple[Any, Sequence[Answer], BadRequest | None]
"""A key, the answer to each of the fields asked for, and why it is none of the entity."""


class Columns(NamedTuple):
    """What is answered about some keys, by field.

    Attributes:
        keys: as asked.
        of_keys: the status of each key; None: OK, or PARTIAL where a value is null.
        values: of each field, one per key; as they are, not yet as an answer writes them.
        ts_ms: of each field, one per key; fields share a column where they have the same.
        statuses: of each field, one per key; None: PRESENT, or NULL_VALUE where the value is null.
        faults: why keys are none of the entity, by their place.
    """

    keys: Sequence[Any]
    of_keys: Sequence[KeyStatus] | None
    values: Sequence[Sequence[Any]]
    ts_ms: Sequence[Sequence[int | None]]
    statuses: Sequence[Sequence[FeatureStatus] | None]
    faults: Mapping[int, BadRequest]


def columns_of_rows(
    asked: KeyRenderer, keys: Sequence[Any], rows: Sequence[RowRead], instant: Instant
) -> Columns:
    """Return what rows say; arguments are those of ``KeyRenderer.from_rows``, of one key or more."""
    slots = list(zip(*[values for _, values, _, _ in rows], strict=True))
    newest = [newest_ms for _, _, newest_ms, _ in rows]
    fresh, windows = instant.state
    oldest_ms = instant.oldest_ms
    # What hangs on a field's window or ts alone is worked out once for all that have it.
    in_windows = {
        window: _within(newest, tail_ms)
        for window, tail_ms in zip(windows, instant.tails_ms, strict=True)
    }
    is_old = _has_older(newest, oldest_ms)
    values, ts_ms = [], []
    statuses: list[Sequence[FeatureStatus] | None] = []
    for place, window, ts_slot in asked.fields or ():
        ts = in_windows[window] if ts_slot is None else slots[ts_slot]
        may_be_old = is_old if ts_slot is None else _has_older(ts, oldest_ms)
        column = slots[place]
        values.append(column)
        ts_ms.append(ts)
        is_usual = fresh == "PRESENT" and not may_be_old
        statuses.append(None if is_usual else _aged(column, ts, oldest_ms, fresh))
    return Columns(keys, None, values, ts_ms, statuses, {})


def columns_of_answers(asked: KeyRenderer, told: Sequence[KeyTold]) -> Columns:
    """Return what is told of keys, none or more."""
    fields = range(len(asked.labels))
    of_keys: list[KeyStatus] = []
    for _, answers, fault in told:
        found = [status for _, _, status in answers]
        of_keys.append(key_status(found) if fault is None else "INVALID_KEY")
    values = [[answers[i][0] for _, answers, _ in told] for i in fields]
    statuses: list[list[FeatureStatus]] = [
        ["INVALID_KEY" if fault else answers[i][2] for _, answers, fault in told] for i in fields
    ]
    return Columns(
        [key for key, _, _ in told],
        None if of_keys == _usual_of_keys(values, len(told)) else of_keys,
        values,
        [[answers[i][1] for _, answers, _ in told] for i in fields],
        [
            None if column == _usual(of_field) else column
            for column, of_field in zip(statuses, values, strict=True)
        ],
        {place: fault for place, (_, _, fault) in enumerate(told) if fault is not None},
    )


def columnar_body(
    asked: KeyRenderer, entity_name: str, as_of_ms: int, columns: Columns, *, has_ts: bool
) -> bytes:
    """Return the JSON of a ``ColumnarAnswer``."""
    ts_of: dict[int, msgspec.Raw] = {}
    for column in columns.ts_ms if has_ts else ():
        if id(column) not in ts_of:
            ts_of[id(column)] = msgspec.Raw(ENCODER.encode(_texts(column)))
    features = {
        label: ColumnAnswer(
            version,
            values if write is None else written(values, write),
            ts_of[id(ts_ms)] if has_ts else None,
            None if statuses is None else _runs(statuses),
        )
        for label, version, write, values, ts_ms, statuses in zip(
            asked.labels,
            asked.versions,
            asked.writes,
            columns.values,
            columns.ts_ms,
            columns.statuses,
            strict=True,
        )
    }
    answer = ColumnarAnswer(
        entity_name,
        instant_text(as_of_ms),
        columns.keys,
        features,
        None if columns.of_keys is None else _runs(columns.of_keys),
        faults_of(columns) or None,
    )
    return ENCODER.encode(answer)


def msgpack_body(
    asked: KeyRenderer, entity_name: str, as_of_ms: int, columns: Columns, **_: bool
) -> bytes:
    """Return a ``LookupAnswer`` in MessagePack: decimals are texts, bytes are bytes."""
    fields = [
        map(
            FeatureAnswer,
            values if write is None else written(values, write),
            _texts(ts_ms),
            repeat(version),
            statuses_of(columns, i),
        )
        for i, (version, write, values, ts_ms) in enumerate(
            zip(
                asked.versions,
                [mask or writer_of(type_, _PACKED) for mask, type_ in asked.shown],
                columns.values,
                columns.ts_ms,
                strict=True,
            )
        )
    ]
    results = [
        KeyAnswer(_packed_key(key), dict(zip(asked.labels, features, strict=True)), status)
        for key, features, status in zip(
            columns.keys,
            zip(*fields, strict=True),
            statuses_of_keys(columns),
            strict=True,
        )
    ]
    for place, error in columns.faults.items():
        fault = KeyFault(error.what, error.where, error.fix)
        results[place] = msgspec.structs.replace(results[place], error=fault)
    return _PACKER.encode(LookupAnswer(entity_name, instant_text(as_of_ms), results))


def statuses_of(columns: Columns, place: int) -> Sequence[FeatureStatus]:
    """Return the status of a field's every value."""
    statuses = columns.statuses[place]
    return _usual(columns.values[place]) if statuses is None else statuses


def statuses_of_keys(columns: Columns) -> Sequence[KeyStatus]:
    """Return the status of every key."""
    if columns.of_keys is not None:
        return columns.of_keys
    return _usual_of_keys(columns.values, len(columns.keys))


def faults_of(columns: Columns) -> list[ColumnFault]:
    """Return what is wrong with keys that are none of the entity."""
    return [
        ColumnFault(place, error.what, error.where, error.fix)
        for place, error in columns.faults.items()
    ]


def written(values: Sequence[Any], write: Write) -> list[Any]:
    """Return values as an answer writes them; nulls stay."""
    return [None if value is None else write(value) for value in values]


_PACKER = msgspec.msgpack.Encoder()
_PACKED: Mapping[str, Write] = {
    "decimal": lambda value: format(value, "f"),
    "timestamp": instant_text,
}


def _packed_key(key: Any) -> Any:
    """Return a key as asked; an integer that MessagePack does not have is a text."""
    if isinstance(key, int) and not -(2**63) <= key < 2**64:
        return str(key)
    if isinstance(key, dict):
        return {name: _packed_key(part) for name, part in key.items()}
    return [_packed_key(part) for part in key] if isinstance(key, list) else key


def _within(newest: Sequence[int | None], tail_ms: int) -> Sequence[int | None]:
    """Return of each row its newest event if a window holds it; the same object if all are."""
    within = [ms if ms is not None and ms >= tail_ms else None for ms in newest]
    return newest if within == newest else within


def _has_older(ts_ms: Sequence[int | None], oldest_ms: int) -> bool:
    return min((ms for ms in ts_ms if ms is not None), default=oldest_ms) < oldest_ms


def _aged(
    values: Sequence[Any], ts_ms: Sequence[int | None], oldest_ms: int, fresh: FeatureStatus
) -> list[FeatureStatus]:
    statuses: list[FeatureStatus] = []
    for value, event_ms in zip(values, ts_ms, strict=True):
        if value is None:
            statuses.append("NULL_VALUE")
        else:
            is_old = event_ms is not None and event_ms < oldest_ms
            statuses.append("OUTSIDE_MAX_AGE" if is_old else fresh)
    return statuses


def _usual(values: Sequence[Any]) -> list[FeatureStatus]:
    return ["NULL_VALUE" if value is None else "PRESENT" for value in values]


def _usual_of_keys(values: Sequence[Sequence[Any]], count: int) -> list[KeyStatus]:
    if not values:
        return ["OK"] * count
    return ["PARTIAL" if None in of_key else "OK" for of_key in zip(*values, strict=True)]


def _runs(statuses: Sequence[Told]) -> list[tuple[Told, int]]:
    return [(status, len(list(run))) for status, run in groupby(statuses)]


def _texts(ts_ms: Sequence[int | None]) -> list[str | int | None]:
    return [None if ms is None else instant_text(ms) for ms in ts_ms]
