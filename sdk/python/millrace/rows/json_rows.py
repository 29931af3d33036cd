"""JSON objects as rows of declared columns: of a topic's records, and of lines in files.

Two parsers give one verdict. Where ``msgspec`` is installed, a typed decoder takes nearly every good
object in one step; whatever it does not take as it stands is read again, value by value, and that
reading decides.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

from millrace.calendar import FIRST_MS, LAST_MS
from millrace.plan import Column, SourcePlan
from millrace.values.documents import parse_object
from millrace.values.scalars import (
    Misfit,
    Number,
    check_clock,
    clock_converter,
    converter,
    instant_ms,
    nearest_vector,
)

_SURELY_SHALLOW = 400
_SHOWN = 80

Values = tuple[Any, ...]


class UnfitRow(Misfit):
    """A value of a row does not fit its column.

    Attributes:
        values: of the columns in order; None for those that do not fit.
    """

    def __init__(self, detail: str, values: Values) -> None:
        super().__init__(detail)
        self.values = values


class JsonRows:
    """Reads JSON objects as rows of a source.

    Of the values that come out, timestamps are epoch milliseconds, decimals ``Decimal`` of the
    column's scale, dates ``datetime.date``. A reader holds no state.

    Args:
        columns: what comes out, in this order.
        clock: the columns that time events.
        is_strict: whether integers of these must be milliseconds plainly.
    """

    def __init__(
        self, columns: Sequence[Column], clock: Collection[str], *, is_strict: bool
    ) -> None:
        self._columns = columns
        self._converters = [
            clock_converter(c.type, is_strict=is_strict) if c.name in clock else converter(c.type)
            for c in columns
        ]
        self._decode = _typed_decoder(columns)
        self._finish = [
            (i, finish)
            for i, column in enumerate(columns)
            if (finish := _finisher(column, is_clock=column.name in clock, is_strict=is_strict))
            is not None
        ]

    @classmethod
    def of_topic(cls, source: SourcePlan) -> "JsonRows":
        """Return the reader of a topic's records, whose times are held against their arrival."""
        return cls(source.columns, {source.event_time}, is_strict=False)

    @classmethod
    def of_files(cls, source: SourcePlan) -> "JsonRows":
        """Return the reader of lines in files."""
        return cls(source.columns, clock_columns(source), is_strict=True)

    def read(self, value: bytes | None) -> Values:
        """Return the values of the columns.

        Raises:
            MalformedError: the bytes are no JSON object.
            UnfitRow: a value does not fit its column's type.
        """
        found = None if value is None else self.read_fast(value)
        return self.read_slow(value) if found is None else found

    def read_fast(self, value: bytes) -> Values | None:
        """Return the values if the typed decoder takes them; None says nothing of the object."""
        if self._decode is None or value.count(b"[") + value.count(b"{") > _SURELY_SHALLOW:
            return None
        import msgspec

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

    def read_slow(self, value: bytes | None) -> Values:
        """Read as ``read`` does, by the reading that decides."""
        found = parse_object(value)
        raw = [reached(found, column.origin) for column in self._columns]
        return converted(self._columns, self._converters, raw)


def reached(record: Mapping[str, object], origin: str) -> object:
    """Return what a record has under a name, or else at a dotted path; None if it has neither."""
    if origin in record or "." not in origin:
        return record.get(origin)
    value: object = record
    for part in origin.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def clock_columns(source: SourcePlan) -> frozenset[str]:
    """Return the columns of a source's files that time its events."""
    named = (source.event_time, source.ingest_time)
    return frozenset(name for name in named if name is not None)


def converted(
    columns: Sequence[Column],
    converters: Sequence[Callable[[Any], object]],
    raw: Sequence[object],
) -> Values:
    """Convert one row's cells, where None is null.

    Raises:
        UnfitRow: for the first cell that does not fit.
    """
    values: list[object] = []
    detail = None
    for column, convert, cell in zip(columns, converters, raw, strict=True):
        try:
            values.append(None if cell is None else convert(cell))
        except Misfit as error:
            values.append(None)
            told = str(error) or f"{_shown(cell)} is no {column.type}"
            detail = detail or f"column {column.name!r}: {told}"
    if detail is not None:
        raise UnfitRow(detail, tuple(values))
    return tuple(values)


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Number) else repr(value)
    if isinstance(value, list):
        text = f"[{', '.join(map(_shown, value[:_SHOWN]))}]"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _typed_decoder(columns: Sequence[Column]) -> Callable[[bytes], Any] | None:
    try:
        import msgspec
    except ImportError:
        return None
    origins = {column.origin for column in columns}
    if len(origins) < len(columns) or any("." in origin for origin in origins):
        # One field is read twice, or records are reached into: one by one.
        return None
    types: dict[str, tuple[Any, Any]] = {
        "int32": (_bounded(-(2**31), 2**31 - 1), None),
        "int64": (_bounded(-(2**63), 2**63 - 1), None),
        "float64": (float | None, None),
        "bool": (bool | None, None),
        "string": (str | None, None),
        "timestamp": (_bounded(FIRST_MS, LAST_MS) | str, None),
        "date": (str | None, None),
        "bytes": (str | None, None),
        "vector": (list[float] | None, None),
        # Its text: through a float it would lose digits, and as a Decimal its spelling.
        "decimal": (msgspec.Raw, msgspec.Raw(b"null")),
    }
    fields: list[tuple[str, Any, Any]] = []
    for i, column in enumerate(columns):
        kind, default = types[column.type.kind]
        fields.append((f"c{i}", kind, msgspec.field(default=default, name=column.origin)))
    # No cycles can arise, so the collector need not look at each row.
    return msgspec.json.Decoder(msgspec.defstruct("Row", fields, gc=False)).decode


def _bounded(low: int, high: int) -> Any:
    import msgspec

    return Annotated[int, msgspec.Meta(ge=low, le=high)] | None


def _finisher(column: Column, *, is_clock: bool, is_strict: bool) -> Callable[[Any], Any] | None:
    """Return what the typed decoder leaves to do for a value that is not None."""
    convert = converter(column.type)

    def finish_timestamp(value: int | str) -> int:
        if isinstance(value, str):
            return instant_ms(value)
        if is_clock:
            check_clock(value, is_strict=is_strict)
        return value

    def finish_integer(value: int) -> int:
        check_clock(value, is_strict=is_strict)
        return value

    def finish_decimal(raw: Any) -> Any:
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
        "vector": lambda doubles: nearest_vector(doubles, column.type.length),
    }
    if is_clock and column.type.kind == "int64":
        return finish_integer
    return finishers.get(column.type.kind)
