"""The classification of one event, from its bytes and its arrival; duplicates are found afterwards.

The rules in their order are in docs/stream-events.md, what fits a column docs/values.md; Flink's
``parse_json_row`` obeys the same ones.
"""

from typing import Any, NamedTuple

from millrace.calendar import day_ms
from millrace.durations import format_duration
from millrace.plan import SourcePlan
from millrace.rows.json_rows import JsonRows, reached
from millrace.values.documents import MalformedError, parse_object
from millrace.values.scalars import Misfit, Number
from millrace.values.units import unit_hint

REASONS = ("malformed", "schema", "late", "future")


class Classification(NamedTuple):
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


class Classifier:
    """Classifies the events of one source.

    Timestamps among the values are epoch milliseconds, decimals ``Decimal`` of the column's scale,
    dates ``datetime.date``. It holds no state: a classification depends on its arguments alone.
    """

    def __init__(self, source: SourcePlan) -> None:
        self._read = JsonRows.of_topic(source).read
        self._event_time = source.event_time
        self._origin = source.column(source.event_time).origin
        self._time_at = [column.name for column in source.columns].index(source.event_time)
        self._time_is_date = source.columns[self._time_at].type.kind == "date"
        self._skew_ms = source.clock_skew_ms
        self._lateness_ms = source.allowed_lateness_ms

    def classify(self, value: bytes | None, ingest_ms: int) -> Classification:
        """Classify a record's value that arrived at ``ingest_ms``."""
        try:
            values = self._read(value)
        except MalformedError as error:
            return Classification("malformed", str(error), None, ())
        except Misfit as error:
            return Classification("schema", str(error), None, ())
        stamped = values[self._time_at]
        if self._time_is_date and stamped is not None:
            stamped = day_ms(stamped)
        if stamped is None:
            return Classification(
                "schema", f"the event time {self._event_time!r} is null", None, ()
            )
        age_ms = ingest_ms - stamped
        if age_ms < 0:
            if -age_ms > self._skew_ms:
                detail = f"{-age_ms} ms ahead of its arrival; {format_duration(self._skew_ms)} is allowed"
                return Classification("future", detail + self._unit(value, stamped), stamped, ())
            stamped = ingest_ms
        elif age_ms > self._lateness_ms:
            detail = f"arrived {age_ms} ms after its time; {format_duration(self._lateness_ms)} is allowed"
            return Classification("late", detail + self._unit(value, stamped), stamped, ())
        return Classification(None, "", stamped, values)

    def _unit(self, value: bytes | None, stamped: int) -> str:
        """Name the unit of an integer that is plainly no number of milliseconds."""
        hint = unit_hint(stamped)
        if not hint:
            return ""
        is_integer = isinstance(reached(parse_object(value), self._origin), Number)
        return f"; {hint}" if is_integer else ""
