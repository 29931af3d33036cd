"""The window contract, whole, by brute force.

Every engine is held to this page, so it imports none of them: it is slow, exact (integers,
``Decimal``, and ``Fraction`` where doubles are added) and says each rule once. The rules in words:
docs/window-contract.md.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from fractions import Fraction

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Event:
    """One event; ``key`` is a value, or a tuple for several join keys; ``fits``: types convert."""

    key: object
    event_ms: int | None
    ingest_ms: int
    value: object = None
    event_id: object = None
    fits: bool = True


@dataclass(frozen=True)
class Feature:
    """An aggregate of ``value``, or of events as such (``count_rows``); ``type``: of the value."""

    aggregate: str
    length_ms: int | None
    hop_ms: int
    offset_ms: int = 0
    type: str = "int64"
    default: object = None  # in place of every null
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Derived:
    """A value of a row of others, in which ``AS_OF()`` is the instant of the query."""

    inputs: tuple[str, ...]
    of: Callable[[Mapping[str, object]], object]
    default: object = None  # in place of null


def judge(
    events: Sequence[Event],
    *,
    allowed_lateness_ms: int,
    clock_skew_ms: int,
    dedup_horizon_ms: int | None = DAY_MS,
) -> list[tuple[str, Event]]:
    """Return, in the order given, each event's verdict and the event as it counts.

    The order given is the position in the source. ``dedup_horizon_ms`` None: no deduplication.
    """
    judged = [_judge_alone(event, allowed_lateness_ms, clock_skew_ms) for event in events]
    arrivals: dict[object, int] = {}
    for i in sorted(range(len(events)), key=lambda i: (events[i].ingest_ms, i)):
        verdict, event = judged[i]
        if verdict != "accepted" or event.event_id is None or dedup_horizon_ms is None:
            continue
        before = arrivals.get(event.event_id)
        if before is not None and event.ingest_ms - before <= dedup_horizon_ms:
            judged[i] = ("duplicate", event)
        arrivals[event.event_id] = event.ingest_ms  # of the last arrival, kept or not
    return judged


def _judge_alone(event: Event, allowed_lateness_ms: int, clock_skew_ms: int) -> tuple[str, Event]:
    if not event.fits or event.event_ms is None:
        return "schema", event
    if event.event_ms > event.ingest_ms + clock_skew_ms:
        return "future", event
    counted = replace(event, event_ms=min(event.event_ms, event.ingest_ms))
    late = event.ingest_ms - event.event_ms > allowed_lateness_ms
    return ("late" if late else "accepted"), counted


def accepted(judged: Iterable[tuple[str, Event]]) -> list[Event]:
    """Keep the events that count."""
    return [event for verdict, event in judged if verdict == "accepted"]


def bounds(feature: Feature, q_ms: int) -> tuple[int | None, int]:
    """Return the half-open interval of event times; no start for a lifetime."""
    anchor, hop = q_ms - feature.offset_ms, feature.hop_ms
    end = anchor // hop * hop if feature.offset_ms else q_ms
    start = None if feature.length_ms is None else (anchor - feature.length_ms) // hop * hop
    return start, end


def value(
    events: Iterable[Event],
    feature: Feature,
    key: object,
    q_ms: int,
    *,
    hindsight: bool = False,
    start_ms: int | None = None,
) -> object:
    """Return the feature of ``key`` at ``q_ms`` over accepted events.

    ``hindsight`` sees what arrived later too; ``start_ms`` is where the view's history begins.
    """
    found = _found(events, feature, key, q_ms, hindsight, start_ms)
    return feature.default if found is None else found


def derive(
    values: Mapping[str, object], derived: Mapping[str, Derived], q_ms: int
) -> dict[str, object]:
    """Return features at ``q_ms`` with those derived of them, which may stand in any order."""
    row, left = {**values, "AS_OF()": q_ms}, dict(derived)
    while left:
        name = next(name for name, d in left.items() if row.keys() >= set(d.inputs))
        found = left.pop(name)
        result = found.of(row)
        row[name] = found.default if result is None else result
    return {name: row[name] for name in (*values, *derived)}


def newest(
    ts_ms: Mapping[str, int | None], derived: Mapping[str, Derived]
) -> dict[str, int | None]:
    """Return the newest event of each feature, given that of each aggregate: of its inputs."""
    row, left = dict(ts_ms), dict(derived)
    while left:
        name = next(name for name, d in left.items() if row.keys() >= set(d.inputs))
        known = [ms for i in left.pop(name).inputs if (ms := row[i]) is not None]
        row[name] = max(known, default=None)
    return row


def _found(
    events: Iterable[Event],
    feature: Feature,
    key: object,
    q_ms: int,
    hindsight: bool,  # noqa: FBT001
    start_ms: int | None,
) -> object:
    told = dict(feature.parameters)
    if key is None or (isinstance(key, tuple) and None in key):
        return _aggregate(feature.aggregate.removesuffix("_rows"), feature.type, [], told)
    start, end = bounds(feature, q_ms)
    rows = [
        e
        for e in events
        if e.key == key
        and e.event_ms is not None
        and (start is None or start <= e.event_ms)
        and e.event_ms < end
        and (start_ms is None or start_ms <= e.event_ms)
        and (hindsight or e.ingest_ms < q_ms)
    ]
    name = feature.aggregate.removesuffix("_rows")
    if name == feature.aggregate:
        rows = [e for e in rows if not _is_null(e.value)]
    if name in {"time_since_first", "time_since_last"}:
        times = [e.event_ms for e in rows if e.event_ms is not None]
        newest = name == "time_since_last"
        return q_ms - (max(times) if newest else min(times)) if times else None
    return _aggregate(name, feature.type, rows, told)


_NEVER_NULL: Mapping[str, Callable[[list[Event], Mapping[str, float]], object]] = {
    "count": lambda rows, told: len(rows),
    "distinct": lambda rows, told: min(len({e.value for e in rows}), int(told["limit"])),
    "last_k": lambda rows, told: _in_order(rows)[::-1][: int(told["k"])],
}
"""Aggregates that have a value of no events too."""


def _is_null(x: object) -> bool:
    return x is None or (isinstance(x, float) and not math.isfinite(x))


def _aggregate(name: str, type_: str, rows: list[Event], told: Mapping[str, float]) -> object:
    values: list = [e.value for e in rows]  # type: ignore[type-arg]
    n = len(values)
    if name in _NEVER_NULL:
        return _NEVER_NULL[name](rows, told)
    if n == 0:
        return None
    if name in {"min", "max", "first", "last"}:
        ordered = sorted(values) if name in {"min", "max"} else _in_order(rows)
        return ordered[0 if name in {"min", "first"} else -1]
    if name == "sum":
        return _sum(values, type_)
    if name == "avg":
        return _double(Fraction(sum(map(Fraction, values))) / n)
    variance = _variance([Fraction(float(v)) for v in values])
    return variance if name == "variance" or variance is None else math.sqrt(variance)


def _in_order(rows: list[Event]) -> list[object]:
    def moment(e: Event) -> tuple[object, ...]:
        has_id = e.event_id is not None
        return e.event_ms, e.ingest_ms, has_id, e.event_id if has_id else 0, e.value

    return [e.value for e in sorted(rows, key=moment)]


def _variance(doubles: list[Fraction]) -> float | None:
    if len(doubles) < 2:
        return None
    mean = Fraction(sum(doubles)) / len(doubles)
    return _double(Fraction(sum((d - mean) ** 2 for d in doubles)) / (len(doubles) - 1))


def _sum(values: list, type_: str) -> object:  # type: ignore[type-arg]
    if type_ == "float64":
        return _double(sum(map(Fraction, values)))
    if type_.startswith("decimal"):
        precision, scale = map(int, type_[len("decimal(") : -1].split(","))
        with localcontext(prec=200):
            total = sum(values, Decimal(0))
            return total if abs(total) < Decimal(10) ** (min(38, precision + 10) - scale) else None
    total = sum(values)
    return total if -(2**63) <= total < 2**63 else None


def _double(exact: Fraction | int) -> float | None:
    try:
        return float(exact)
    except OverflowError:
        return None
