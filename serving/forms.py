"""The forms in which a lookup is answered, and which of them a request asks for.

``Accept`` chooses, as RFC 9110 says (section 12.5.1); of forms that are as welcome the first listed
is taken. Both front ends ask here, so that they choose alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from millrace.online.answers import Answer
from serving.arrow import arrow_body
from serving.columns import (
    Columns,
    KeyTold,
    columnar_body,
    columns_of_answers,
    columns_of_rows,
    msgpack_body,
)
from serving.errors import BadRequest, NotAcceptable
from serving.rendering import Instant, KeyRenderer, RowRead, entity_body, lookup_body

JSON = "application/json"
COLUMNAR = "application/json;profile=columnar"
MSGPACK = "application/msgpack"
ARROW = "application/vnd.apache.arrow.stream"


class Form(Protocol):
    """How answers of a plan are written."""

    @property
    def media_type(self) -> str:
        """What ``Content-Type`` says."""

    @property
    def is_aside(self) -> bool:
        """Whether ``body`` is called in a thread, for what it takes."""

    def without_ts(self) -> "Form":
        """Return the form that leaves ``ts`` out.

        Raises:
            BadRequest: there is none.
        """

    def of_rows(
        self,
        asked: KeyRenderer,
        entity_name: str,
        keys: Sequence[Any],
        rows: Sequence[RowRead],
        instant: Instant,
    ) -> bytes:
        """Return the answer that rows give, as ``KeyRenderer.from_rows`` takes them."""

    def parts(
        self, asked: KeyRenderer, keys: Sequence[Any], told: Sequence[Sequence[Answer]]
    ) -> list[Any]:
        """Return what ``body`` takes of each key, as ``KeyRenderer.from_answers`` takes them."""

    def invalid(self, asked: KeyRenderer, key: Any, error: BadRequest) -> Any:
        """Return what ``body`` takes of a key that is none of the entity."""

    def body(
        self, asked: KeyRenderer, entity_name: str, as_of_ms: int, parts: Sequence[Any]
    ) -> bytes:
        """Return the answer put together."""


@dataclass(frozen=True)
class RowForm:
    """A text per key, in JSON."""

    write: Callable[[str, int, Sequence[bytes]], bytes]
    media_type: str = JSON
    is_aside: bool = False

    def without_ts(self) -> "Form":
        """Refuse it: a row tells all."""
        raise _only_columns()

    def of_rows(
        self,
        asked: KeyRenderer,
        entity_name: str,
        keys: Sequence[Any],
        rows: Sequence[RowRead],
        instant: Instant,
    ) -> bytes:
        """Return the answer that rows give."""
        return self.write(entity_name, instant.as_of_ms, asked.from_rows(keys, rows, instant))

    def parts(
        self, asked: KeyRenderer, keys: Sequence[Any], told: Sequence[Sequence[Answer]]
    ) -> list[Any]:
        """Return the text about each key."""
        return [*asked.from_answers(keys, told)]

    def invalid(self, asked: KeyRenderer, key: Any, error: BadRequest) -> Any:
        """Return the text about a key that is none."""
        return asked.invalid(key, error)

    def body(
        self, asked: KeyRenderer, entity_name: str, as_of_ms: int, parts: Sequence[Any]
    ) -> bytes:
        """Return the answer put together."""
        return self.write(entity_name, as_of_ms, parts)


class _Write(Protocol):
    def __call__(
        self, asked: KeyRenderer, entity_name: str, as_of_ms: int, columns: Columns, *, has_ts: bool
    ) -> bytes: ...


@dataclass(frozen=True)
class ColumnForm:
    """What is written of columns."""

    media_type: str
    write: _Write
    may_omit_ts: bool = True
    is_aside: bool = False
    has_ts: bool = True

    def without_ts(self) -> "Form":
        """Return the same without ``ts``; rows tell all."""
        if not self.may_omit_ts:
            raise _only_columns()
        return replace(self, has_ts=False)

    def of_rows(
        self,
        asked: KeyRenderer,
        entity_name: str,
        keys: Sequence[Any],
        rows: Sequence[RowRead],
        instant: Instant,
    ) -> bytes:
        """Return the answer that rows give."""
        columns = columns_of_rows(asked, keys, rows, instant)
        return self.write(asked, entity_name, instant.as_of_ms, columns, has_ts=self.has_ts)

    def parts(
        self, asked: KeyRenderer, keys: Sequence[Any], told: Sequence[Sequence[Answer]]
    ) -> list[Any]:
        """Return each key and what is told of it."""
        return [
            (key, [of_reads[at] for at in asked.at], None)
            for key, of_reads in zip(keys, told, strict=True)
        ]

    def invalid(self, asked: KeyRenderer, key: Any, error: BadRequest) -> KeyTold:
        """Return a key that is none, and what is wrong with it."""
        return key, [(None, None, "NULL_VALUE")] * len(asked.labels), error

    def body(
        self, asked: KeyRenderer, entity_name: str, as_of_ms: int, parts: Sequence[Any]
    ) -> bytes:
        """Return the answer put together."""
        columns = columns_of_answers(asked, parts)
        return self.write(asked, entity_name, as_of_ms, columns, has_ts=self.has_ts)


ROWS: Form = RowForm(lookup_body)
ENTITY: Form = RowForm(entity_body)
FORMS: tuple[Form, ...] = (
    ROWS,
    ColumnForm(COLUMNAR, columnar_body),
    ColumnForm(MSGPACK, msgpack_body, may_omit_ts=False),
    ColumnForm(ARROW, arrow_body, is_aside=True),
)
"""Those of ``:lookup`` and ``:batchLookup``; the first that is as welcome as another is taken."""


@lru_cache(maxsize=256)
def form_of(accept: bytes | None) -> Form:
    """Return the form that an ``Accept`` asks for; several such headers are joined by commas.

    Raises:
        NotAcceptable: it excludes all.
    """
    told = "" if accept is None else accept.decode("latin-1").strip()
    if not told:
        return ROWS
    ranges = [found for part in told.split(",") if (found := _range(part)) is not None]
    weights = [_weight(form.media_type, ranges) for form in FORMS]
    best = max(weights)
    if best <= 0:
        raise NotAcceptable(
            f"no answer is of {told[:200]!r}",
            where="Accept",
            fix=f"ask for {', '.join(form.media_type for form in FORMS)}",
        )
    return FORMS[weights.index(best)]


_Range = tuple[str, str | None, float]
"""Type, profile and weight."""


def _range(part: str) -> _Range | None:
    """Read a media range; None for what is none. Of its parameters, the profile and q count."""
    type_, *parameters = [piece.strip().lower() for piece in part.split(";")]
    profile, weight = None, 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "profile":
            profile = value.strip('"')
        elif name == "q":
            try:
                weight = float(value)
            except ValueError:
                return None
            if not 0 <= weight <= 1:
                return None
    return (type_, profile, weight) if "/" in type_ else None


def _weight(media_type: str, ranges: Sequence[_Range]) -> float:
    """Return how welcome a type is; what names it most closely says it."""
    type_, _, profile = media_type.partition(";profile=")
    closest, weight = -1, 0.0
    for range_, asked, q in ranges:
        if asked is not None and asked != profile:
            continue
        if range_ == type_:
            how_close = 2 + (asked is not None)
        elif range_ == "*/*":
            how_close = 0
        elif range_ == type_.partition("/")[0] + "/*":
            how_close = 1
        else:
            continue
        if how_close > closest:
            closest, weight = how_close, q
    return weight


def _only_columns() -> BadRequest:
    return BadRequest(
        "rows have a ts of every value",
        where="options.ts",
        fix=f"leave options.ts out, or ask for {COLUMNAR}",
    )
