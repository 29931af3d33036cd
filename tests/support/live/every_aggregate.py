"""Every aggregate there is in every kind of window, declared for a live view and told to its oracle.

Aggregates and kinds of windows are those of the language, so a new one is streamed, killed and held
against the oracle as soon as it is registered.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from millrace.aggregates import AGGREGATES, check_forms
from millrace.aggregates.registry import Entry
from millrace.calendar_windows import Tumbling
from millrace.types import parse_type
from millrace.window import Window
from millrace.windows import KINDS, Lifetime, Session, Sliding
from tests.reference import Feature
from tests.support.kernel_cases import default_of
from tests.support.oracle import told

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000


class Windowed(NamedTuple):
    """A window as a declaration writes it, and the fields by which the reference knows it."""

    written: Mapping[str, Any]
    fields: Mapping[str, Any]


class Live(NamedTuple):
    """A feature as a declaration writes it, and the reference's, over a column or over rows."""

    written: Mapping[str, Any]
    reference: Feature
    column: str | None


def _zone_past_midnight() -> str:
    """A zone in which a day has just begun, so that events late by an hour are of the one before."""
    hour = datetime.now(tz=UTC).hour
    return f"Etc/GMT{hour if hour <= 12 else hour - 24:+}"


_MIDNIGHT = _zone_past_midnight()

_WINDOWS: Mapping[type[Window], Windowed] = {
    Sliding: Windowed({"window": "2m"}, {"length_ms": 2 * MINUTE_MS, "hop_ms": 10 * SECOND_MS}),
    Lifetime: Windowed(
        {"window": "lifetime", "offset": "1m", "hop": "10s"},
        {"length_ms": None, "hop_ms": 10 * SECOND_MS, "offset_ms": MINUTE_MS},
    ),
    Tumbling: Windowed(
        {"window": {"tumbling": "1d", "timezone": _MIDNIGHT, "previous": 1}},
        {"length_ms": None, "hop_ms": HOUR_MS, "calendar": ("1d", _MIDNIGHT, 1)},
    ),
    Session: Windowed(
        {"window": {"session": "2m", "max": "10m"}},
        {"length_ms": 10 * MINUTE_MS, "hop_ms": MINUTE_MS, "session_ms": 2 * MINUTE_MS},
    ),
}
check_forms("the live views", KINDS, _WINDOWS)


def every_aggregate(
    prefix: str, types: Mapping[str, str], columns: Sequence[str], place: int
) -> dict[str, Live]:
    """Return a feature for each aggregate and every other kind of window, by name.

    Args:
        prefix: what their names begin with.
        types: of the source's columns.
        columns: which to take; an aggregate reads one of them, so that its windows share tiles.
        place: 0 or 1: which of the kinds, and where in the columns to begin.
    """
    found: dict[str, Live] = {}
    for number, entry in enumerate(AGGREGATES.values()):
        column = _column(entry, types, columns, number + place)
        for kind in KINDS[place::2]:
            name = f"{prefix}_{entry.name}_{kind.__name__.lower()}"
            # Half of the windows are told what to say in place of null.
            has_default = kind in {Tumbling, Session}
            found[name] = _live(name, entry, column, types, _WINDOWS[kind], has_default=has_default)
    return found


def yaml_of(features: Mapping[str, Live]) -> str:
    """Return features as entries of a view's list; JSON is YAML."""
    return "".join(f"      - {json.dumps(one.written)}\n" for one in features.values())


def _column(
    entry: Entry, types: Mapping[str, str], columns: Sequence[str], place: int
) -> str | None:
    taken: list[str | None] = [c for c in columns if entry.accepts(parse_type(types[c]))]
    if not entry.needs_input:
        taken.append(None)
    return taken[place % len(taken)]


def _live(
    name: str,
    entry: Entry,
    column: str | None,
    types: Mapping[str, str],
    window: Windowed,
    *,
    has_default: bool,
) -> Live:
    type_ = "int64" if column is None else types[column]
    default = default_of(entry.name, parse_type(type_)) if has_default else None
    written: dict[str, Any] = {"name": name, "aggregate": entry.name, **window.written}
    written |= dict(told(entry.name))
    if column is not None:
        written["column"] = column
    if default is not None:
        written["default"] = default if isinstance(default, (bool, int, float)) else str(default)
    reference = Feature(
        f"{entry.name}_rows" if column is None else entry.name,
        **window.fields,
        type=type_,
        default=default,
        parameters=told(entry.name),
    )
    return Live(written, reference, column)
