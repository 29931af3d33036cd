"""Every kind of window: as the language has it, as the reference has it, and drawn for tests."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import strategies as st

from millrace.aggregates import check_forms
from millrace.calendar_windows import Tumbling
from millrace.durations import MINUTE_MS
from millrace.window import Window
from millrace.windows import KINDS, Lifetime, Session, Sliding
from millrace.zones import LONGEST_MS, calendar_hop_ms
from tests import reference


def window_of(feature: reference.Feature) -> Window:
    """Return the window that the reference has of a feature."""
    if feature.calendar is not None:
        unit, zone, previous = feature.calendar
        return Tumbling(unit, zone, previous, feature.hop_ms)
    if feature.session_ms is not None:
        return Session(feature.session_ms, feature.length_ms or 0, feature.hop_ms)
    if feature.length_ms is None:
        return Lifetime(feature.hop_ms, feature.offset_ms)
    return Sliding(feature.length_ms, feature.hop_ms, feature.offset_ms)


_FIELDS: Mapping[type[Window], Callable[[Any], dict[str, Any]]] = {
    Sliding: lambda w: {"length_ms": w.span_ms, "offset_ms": w.offset_ms},
    Lifetime: lambda w: {"length_ms": None, "offset_ms": w.offset_ms},
    Session: lambda w: {"length_ms": w.max_ms, "session_ms": w.gap_ms},
    Tumbling: lambda w: {"length_ms": None, "calendar": (w.unit, w.timezone, w.previous)},
}
check_forms("the oracle", KINDS, _FIELDS)


def reference_fields(window: Window) -> dict[str, Any]:
    """Return the fields by which the reference knows a window."""
    return {"hop_ms": window.hop_ms, **_FIELDS[type(window)](window)}


class Stage(NamedTuple):
    """Where the instants of a test lie: multiples of a step around an origin."""

    origin_ms: int
    step_ms: int


def _ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


QUARTER_MS = 15 * MINUTE_MS

STAGES = st.sampled_from(
    [
        Stage(0, 1_000),
        Stage(0, QUARTER_MS),
        Stage(_ms(1969, 12, 31, 23), QUARTER_MS),
        Stage(_ms(1965, 3, 1), QUARTER_MS),
        Stage(_ms(2018, 3, 25, 1), QUARTER_MS),  # London's clocks are set forward
        Stage(_ms(2018, 10, 28, 1), QUARTER_MS),  # and back
        Stage(_ms(2017, 10, 15, 3), QUARTER_MS),  # São Paulo leaves out a midnight
        Stage(_ms(2018, 2, 18, 2), QUARTER_MS),  # and has an hour before one twice
        Stage(_ms(2011, 12, 30, 10), 4 * QUARTER_MS),  # Apia leaves out a day
    ]
)
STAGE = st.shared(STAGES, key="stage")
"""The stage of an example: the same wherever it is drawn."""

ZONES = (
    "Europe/London", "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia", "Australia/Lord_Howe",
    "UTC",
)  # fmt: skip
CALENDAR = tuple(
    Tumbling(unit, zone, previous, calendar_hop_ms(zone))
    for unit in LONGEST_MS
    for zone in ZONES
    for previous in (0, 1, 2)
)


def _hopping(step_ms: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Hop, length and offset of sliding windows, the length a multiple of the hop."""
    return st.tuples(
        st.sampled_from([1, 2, 5, 10, 30]),
        st.integers(1, 6),
        st.sampled_from([0, 0, 0, 7, 20]),
    ).map(lambda n: (n[0] * step_ms, n[0] * n[1] * step_ms, n[2] * step_ms))


def _sessions(stage: Stage) -> st.SearchStrategy[Window]:
    """Gaps of some steps and a bit, which the hop may not pass; ``max`` of some hops."""
    return st.tuples(
        st.sampled_from([1, 1, 2, 5]),
        st.integers(0, 12),
        st.sampled_from([0, 1, stage.step_ms // 2]),
        st.integers(1, 40),
    ).map(
        lambda n: Session(
            (n[0] + n[1]) * stage.step_ms + n[2],
            (-(-((n[0] + n[1]) * stage.step_ms + n[2]) // (n[0] * stage.step_ms)) + n[3])
            * n[0]
            * stage.step_ms,
            n[0] * stage.step_ms,
        )
    )


_DRAWN: Mapping[type[Window], Callable[[Stage], st.SearchStrategy[Window]]] = {
    Sliding: lambda s: _hopping(s.step_ms).map(lambda n: Sliding(n[1], n[0], n[2])),
    Lifetime: lambda s: _hopping(s.step_ms).map(lambda n: Lifetime(n[0], n[2])),
    Tumbling: lambda _: st.sampled_from(CALENDAR),
    Session: _sessions,
}
check_forms("the strategies", KINDS, _DRAWN)

WINDOWS: st.SearchStrategy[Window] = STAGE.flatmap(
    lambda stage: st.one_of(*(_DRAWN[kind](stage) for kind in KINDS))
)
"""Windows of every kind, cut from tiles of the step of the stage."""
