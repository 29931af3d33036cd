"""The rules of windows, hops and offsets."""

from collections.abc import Callable, Iterable, Mapping
from math import isqrt
from typing import Any, get_args

from millrace import spec
from millrace.aggregates import check_forms
from millrace.calendar_windows import Tumbling
from millrace.durations import SECOND_MS, format_duration
from millrace.faults import FaultList, is_read
from millrace.rules.values import check_zone, duration_ms
from millrace.spec import Feature
from millrace.window import Window
from millrace.windows import Lifetime, Session, Sliding, default_hop_ms, session_hop_ms
from millrace.zones import LONGEST_MS, calendar_hop_ms

LIFETIME = "lifetime"

MOST_PREVIOUS = 1000
"""So many hours, days, weeks or months back a calendar window may lie."""


def window_of(feature: Feature, faults: FaultList) -> Window | None:
    """Return a feature's window; None if its length, hop or offset is at fault."""
    before = len(faults)
    if not isinstance(feature.window, str):
        return _RULES[type(feature.window)](feature, feature.window, faults)
    length = _length_ms(feature, feature.window, faults)
    hop = offset = None
    if feature.hop is not None:
        hop = duration_ms(feature.hop, "hop", feature.where.at("hop"), faults)
    if feature.offset is not None:
        offset = duration_ms(
            feature.offset, "offset", feature.where.at("offset"), faults, at_least_ms=0
        )
    is_unread = not all(map(is_read, (feature.window, feature.hop, feature.offset)))
    if len(faults) > before or is_unread:
        return None
    hop = default_hop_ms(length) if hop is None else hop
    if length is None:
        window: Sliding | Lifetime = Lifetime(hop, offset or 0)
    else:
        window = Sliding(length, hop, offset or 0)
    _check_hop(feature, window, faults)
    if len(faults) == before:
        _check_offset(feature, window, faults)
    return window if len(faults) == before else None


def _tumbling(feature: Feature, written: spec.Tumbling, faults: FaultList) -> Window | None:
    before, where = len(faults), written.where
    _refuse_steps(feature, "a calendar window", "previous says how far back it lies", faults)
    if is_read(written.unit) and written.unit not in LONGEST_MS:
        faults.add(
            where.at("tumbling"),
            f"tumbling: {written.unit[:80]!r} is no calendar unit",
            f"write one of {', '.join(LONGEST_MS)}; a window of several days is window: 3d",
        )
    zone = "UTC" if written.timezone is None else written.timezone
    if is_read(zone):
        check_zone(zone, where.at("timezone"), faults)
    previous = written.previous
    if not _is_whole(previous) or not 0 <= previous <= MOST_PREVIOUS:
        faults.add(
            where.at("previous"),
            f"previous: {previous!r} is no number of whole units before",
            f"write 0 for the one that the query lies in, 1 for the one before it, up to "
            f"{MOST_PREVIOUS}",
        )
    if len(faults) > before or not (is_read(zone) and is_read(written.unit)):
        return None
    return Tumbling(written.unit, zone, int(previous), calendar_hop_ms(zone))


def _is_whole(number: object) -> bool:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    return float(number).is_integer()


def _session(feature: Feature, written: spec.Session, faults: FaultList) -> Window | None:
    before, where = len(faults), written.where
    _refuse_steps(feature, "a session", "its tiles are cut by its gap", faults)
    gap_ms = duration_ms(written.gap, "session", where.at("session"), faults)
    max_ms = duration_ms(written.max, "max", where.at("max"), faults)
    if gap_ms is None or max_ms is None:
        return None
    hop_ms = session_hop_ms(gap_ms, max_ms)
    if gap_ms < SECOND_MS:
        what = f"session: a gap of {written.gap} is shorter than a second"
        faults.add(where.at("session"), what, "tiles are of a second at least: write 1s or more")
    elif max_ms < gap_ms:
        what = f"max {written.max} is shorter than the gap {written.gap}"
        faults.add(where.at("max"), what, "write how long a session may last: max: 1d")
    elif hop_ms is None:
        what = f"max {written.max} is not a whole number of seconds"
        near = _words(_around(max_ms, SECOND_MS))
        faults.add(where.at("max"), what, f"the nearest are {near}")
    if len(faults) > before or hop_ms is None:
        return None
    return Session(gap_ms, max_ms, hop_ms)


def _refuse_steps(feature: Feature, what: str, instead: str, faults: FaultList) -> None:
    for key, value in (("hop", feature.hop), ("offset", feature.offset)):
        if value is not None:
            faults.add(feature.where.at(key), f"{what} takes no {key}", f"remove it: {instead}")


_RULES: Mapping[type, Callable[[Feature, Any, FaultList], Window | None]] = {
    spec.Tumbling: _tumbling,
    spec.Session: _session,
}
check_forms("the rules", get_args(spec.WindowSpec), {str: None, **_RULES})


def _length_ms(feature: Feature, written: str, faults: FaultList) -> int | None:
    where = feature.where.at("window")
    if written == LIFETIME:
        return None
    if written == "" and is_read(written):
        faults.add(
            where,
            f"feature {feature.name!r} has no window",
            'name one: window: 1h in YAML, .over("1h") in Python',
        )
        return None
    length = duration_ms(written, "window", where, faults)
    if length is not None and length % SECOND_MS:
        faults.add(
            where,
            f"window {written} is not a whole number of seconds",
            f"the nearest are {_words(_around(length, SECOND_MS))}",
        )
    return length


def _check_hop(feature: Feature, window: Sliding | Lifetime, faults: FaultList) -> None:
    hop, length = window.hop_ms, window.length_ms
    where = feature.where.at("hop")
    if length is None:
        if hop % SECOND_MS:
            near = _words(_around(hop, SECOND_MS))
            faults.add(
                where, f"hop {feature.hop} is not a whole number of seconds", f"nearest: {near}"
            )
        return
    if hop % SECOND_MS or length % hop:
        faults.add(
            where,
            f"hop {format_duration(hop)} does not cut the window {feature.window} into whole tiles",
            f"a hop is a whole number of seconds that divides the window; the nearest valid are "
            f"{_words(nearest_hops_ms(length, hop))}",
        )


def nearest_hops_ms(length_ms: int, hop_ms: int) -> list[int]:
    """Return the valid hops just below and just above a wanted one.

    The window is a whole number of seconds.

    >>> nearest_hops_ms(3_600_000, 420_000)
    [400000, 450000]
    """
    length_s = length_ms // SECOND_MS
    small = [d for d in range(1, isqrt(length_s) + 1) if length_s % d == 0]
    hops = sorted({d * SECOND_MS for d in small} | {length_s // d * SECOND_MS for d in small})
    below = [h for h in hops if h < hop_ms][-1:]
    above = [h for h in hops if h > hop_ms][:1]
    return below + above


def _check_offset(feature: Feature, window: Sliding | Lifetime, faults: FaultList) -> None:
    if window.offset_ms % window.hop_ms == 0:
        return
    near = _words(_around(window.offset_ms, window.hop_ms))
    faults.add(
        feature.where.at("offset"),
        f"offset {feature.offset} is not a multiple of the hop {format_duration(window.hop_ms)}",
        f"the nearest valid are {near}; or name a hop that divides the offset",
    )


def _around(value_ms: int, step_ms: int) -> list[int]:
    below = value_ms // step_ms * step_ms
    return [v for v in (below, below + step_ms) if v > 0]


def _words(durations_ms: Iterable[int]) -> str:
    return " and ".join(format_duration(d) for d in durations_ms)
