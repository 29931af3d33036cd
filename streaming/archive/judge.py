"""The verdict on one event, from its bytes and its arrival; duplicates are judged afterwards.

Two parsers give one verdict. A typed decoder takes nearly every good event in one step; whatever
it does not take as it stands is read again, value by value, and that reading decides. The table
of verdicts is docs/stream-events.md; Flink's ``parse_json_row`` obeys the same one.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import date
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec

from millrace.durations import DAY_MS, format_duration
from millrace.plan import Column, SourcePlan
from streaming.archive.values import FARTHEST_MS, Misfit, Number, converter, instant_ms

REASONS = ("malformed", "schema", "late", "future")

DEEPEST = 1000
"""JSON nested deeper than this is malformed."""
_SURELY_SHALLOW = 400
# The parser must go as deep as is allowed, wherever in the stack it is called.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 4 * DEEPEST))

_SHOWN = 80

_OPENING, _CLOSING = ("[", "{"), ("]", "}")
_HIGH_SURROGATES = range(0xD800, 0xDC00)
_LOW_SURROGATES = range(0xDC00, 0xE000)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Verdict(NamedTuple):
    """What becomes of an event.

    Attributes:
        reason: why it is refused; None if it counts (unless its id came before).
        detail: the reason in words, with the offending value; empty if it counts.
        event_ms: the event time as it counts; of a refused one as it was stamped, None if unknown.
        values: of the declared columns, in order; empty if refused.
    """

    reason: str | None
    detail: str
    event_ms: int | None
    values: tuple[Any, ...]


class MalformedError(ValueError):
    """The bytes are not exactly one JSON object."""


class Judge:
    """Judges the events of one source.

    Timestamps among the values are epoch milliseconds, decimals ``Decimal`` of the column's scale,
    dates ``datetime.date``. A judge holds no state: a verdict depends on its arguments alone.
    """

    def __init__(self, source: SourcePlan) -> None:
        self._columns = source.columns
        self._converters = [converter(column.type) for column in source.columns]
        self._decode = _typed_decoder(source.columns)
        self._finish = [
            (i, finish)
            for i, column in enumerate(source.columns)
            if (finish := _finisher(column)) is not None
        ]
        self._time_at = [column.name for column in source.columns].index(source.event_time)
        self._time_is_date = source.columns[self._time_at].type.kind == "date"
        self._skew_ms = source.clock_skew_ms
        self._lateness_ms = source.allowed_lateness_ms

    def judge(self, value: bytes | None, ingest_ms: int) -> Verdict:
        """Return the verdict on a record's value that arrived at ``ingest_ms``."""
        try:
            values = self.values(value)
        except MalformedError as error:
            return Verdict("malformed", str(error), None, ())
        except Misfit as error:
            return Verdict("schema", str(error), None, ())
        stamped = values[self._time_at]
        if self._time_is_date and stamped is not None:
            stamped = (stamped.toordinal() - _EPOCH_ORDINAL) * DAY_MS
        if stamped is None:
            name = self._columns[self._time_at].name
            return Verdict("schema", f"the event time {name!r} is null", None, ())
        age_ms = ingest_ms - stamped
        if age_ms < 0:
            if -age_ms > self._skew_ms:
                detail = f"{-age_ms} ms ahead of its arrival; {format_duration(self._skew_ms)} is allowed"
                return Verdict("future", detail, stamped, ())
            stamped = ingest_ms
        elif age_ms > self._lateness_ms:
            detail = f"arrived {age_ms} ms after its time; {format_duration(self._lateness_ms)} is allowed"
            return Verdict("late", detail, stamped, ())
        return Verdict(None, "", stamped, values)

    def values(self, value: bytes | None) -> tuple[Any, ...]:
        """Return the values of the declared columns, in order.

        Raises:
            MalformedError: the bytes are no JSON object.
            Misfit: a value does not fit its column's type.
        """
        found = None if value is None else self._read_fast(value)
        return self._read(value) if found is None else found

    def _read_fast(self, value: bytes) -> tuple[Any, ...] | None:
        """Return the values if the typed decoder takes them; None says nothing of the event."""
        if value.count(b"[") + value.count(b"{") > _SURELY_SHALLOW:
            return None
        try:
            if not value.isascii():
                value.decode()
            values = list(msgspec.structs.astuple(self._decode(value)))
            for i, finish in self._finish:
                if values[i] is not None:
                    values[i] = finish(values[i])
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return None
        return tuple(values)

    def _read(self, value: bytes | None) -> tuple[Any, ...]:
        found = parse_object(value)
        values = []
        for column, convert in zip(self._columns, self._converters, strict=True):
            raw = found.get(column.name)
            try:
                values.append(None if raw is None else convert(raw))
            except Misfit:
                text = f"column {column.name!r}: {_shown(raw)} is no {column.type}"
                raise Misfit(text) from None
        return tuple(values)


def _typed_decoder(columns: Sequence[Column]) -> Callable[[bytes], Any]:
    fields: list[tuple[str, Any, Any]] = []
    for i, column in enumerate(columns):
        kind, default = _FAST_TYPES[column.type.kind]
        fields.append((f"c{i}", kind, msgspec.field(default=default, name=column.name)))
    # No cycles can arise, so the collector need not look at each event.
    return msgspec.json.Decoder(msgspec.defstruct("Event", fields, gc=False)).decode


def _bounded(low: int, high: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=low, le=high)] | None


_ABSENT = msgspec.Raw(b"null")
_FAST_TYPES: dict[str, tuple[Any, Any]] = {
    "int32": (_bounded(-(2**31), 2**31 - 1), None),
    "int64": (_bounded(-(2**63), 2**63 - 1), None),
    "float64": (float | None, None),
    "bool": (bool | None, None),
    "string": (str | None, None),
    "timestamp": (_bounded(-FARTHEST_MS, FARTHEST_MS) | str, None),
    "date": (str | None, None),
    "bytes": (str | None, None),
    # Its text: through a float it would lose digits, and as a Decimal its spelling.
    "decimal": (msgspec.Raw, _ABSENT),
}


def _finisher(column: Column) -> Callable[[Any], Any] | None:
    """Return what the typed decoder leaves to do for a value that is not None."""
    convert = converter(column.type)

    def finish_timestamp(value: int | str) -> Any:
        return value if isinstance(value, int) else instant_ms(value)

    def finish_decimal(raw: msgspec.Raw) -> Any:
        text = bytes(raw).decode()
        if text == "null":
            return None
        # An escape within quotes matches no number here, so the slow reading takes it.
        return convert(text[1:-1] if text[0] == '"' else Number(text))

    finishers: dict[str, Callable[[Any], Any]] = {
        "timestamp": finish_timestamp,
        "decimal": finish_decimal,
        "date": convert,
        "bytes": convert,
    }
    return finishers.get(column.type.kind)


def parse_object(value: bytes | None) -> dict[str, object]:
    """Return the one JSON object that the bytes are; numbers as ``Number``, the last of equal names.

    Raises:
        MalformedError: they are anything else.
    """
    if value is None:
        raise MalformedError("no value (a tombstone)")
    if not value:
        raise MalformedError("empty")
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start} is not UTF-8") from None
    _check_depth(text)
    try:
        found = json.loads(
            text, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise MalformedError(f"{error.msg} at character {error.pos}") from None
    if not isinstance(found, dict):
        raise MalformedError("JSON, but not an object")
    _check_surrogates(text)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON")


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if depth > DEEPEST:
            raise MalformedError(f"nested deeper than {DEEPEST} levels")


def _check_surrogates(text: str) -> None:
    """Refuse an escaped surrogate without its other half; JSON's grammar lets it pass."""
    if "\\u" not in text:
        return
    open_until = -1
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else 0
        is_low = code in _LOW_SURROGATES
        if (open_until >= 0) != is_low or (is_low and match.start() != open_until):
            raise MalformedError("a lone surrogate escape")
        open_until = match.end() if code in _HIGH_SURROGATES else -1
    if open_until >= 0:
        raise MalformedError("a lone surrogate escape")


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Number) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
