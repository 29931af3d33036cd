"""The window contract, whole, by brute force.

Every engine is held to this page, so it imports none of them: it is slow, exact (integers,
``Decimal``, and ``Fraction`` where doubles are added) and says each rule once. The rules in words:
docs/window-contract.md.
"""

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

from tests.support import calendar_oracle as calendar

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
    """An aggregate of ``value``, or of events as such (``count_rows``); ``type``: of the value.

    Where there is a ``calendar``, it says which events count, and ``length_ms`` nothing.
    """

    aggregate: str
    length_ms: int | None
    hop_ms: int
    offset_ms: int = 0
    type: str = "int64"
    default: object = None  # in place of every null
    parameters: tuple[tuple[str, float], ...] = ()
    calendar: tuple[str, str, int] | None = None  # unit, time zone, how many before
    session_ms: int | None = None  # the gap; ``length_ms`` is then how far back a run is followed


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
    if feature.calendar is not None:
        return calendar.bounds(*feature.calendar, feature.hop_ms, q_ms)
    anchor, hop = q_ms - feature.offset_ms, feature.hop_ms
    end = anchor // hop * hop if feature.offset_ms else q_ms
    start = None if feature.length_ms is None else (anchor - feature.length_ms) // hop * hop
    return start, end


def of_session(rows: list[Event], feature: Feature, q_ms: int) -> list[Event]:
    """Return the newest run of events, whose neighbours lie less than the gap apart; without a gap, all."""
    if feature.session_ms is None:
        return rows
    run: list[Event] = []
    after_ms = q_ms
    for event in sorted(rows, key=lambda e: e.event_ms or 0, reverse=True):
        if after_ms - (event.event_ms or 0) >= feature.session_ms:
            break
        run.append(event)
        after_ms = event.event_ms or 0
    return run


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


def over_limit(
    over: Iterable[str], values: Mapping[str, object], derived: Mapping[str, Derived], q_ms: int
) -> set[str]:
    """Return which features are over a limit, given which aggregates are.

    A derived one is if, but for its default, it is null and one of its inputs is.
    """
    row, found = {**values, "AS_OF()": q_ms}, set(over)
    of_null = {name: d for name, d in derived.items() if d.of(row) is None}
    for _ in of_null:
        found |= {name for name, d in of_null.items() if found & set(d.inputs)}
    return found


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
    rows = of_session(rows, feature, q_ms)
    name = feature.aggregate.removesuffix("_rows")
    if name == feature.aggregate:
        rows = [e for e in rows if not _is_null(e.value)]
    if name in {"time_since_first", "time_since_last"}:
        times = [e.event_ms for e in rows if e.event_ms is not None]
        newest = name == "time_since_last"
        return q_ms - (max(times) if newest else min(times)) if times else None
    return _aggregate(name, feature.type, rows, told)


_ALWAYS_ASKED: Mapping[str, Callable[[list[Event], str, Mapping[str, float]], object]] = {
    "count": lambda rows, type_, told: len(rows),
    "distinct": lambda rows, type_, told: min(len({e.value for e in rows}), int(told["limit"])),
    "top_k": lambda rows, type_, told: _most_frequent(rows, told, int(told["k"])),
    "mode": lambda rows, type_, told: (_most_frequent(rows, told, 1) or [None])[0],
    "first_k": lambda rows, type_, told: _in_order(rows)[: int(told["k"])],
    "last_k": lambda rows, type_, told: _in_order(rows)[::-1][: int(told["k"])],
    "approx_distinct": lambda rows, type_, told: approx_distinct(
        [value_bytes(e.value, type_) for e in rows], int(told["precision"])
    ),
}
"""Aggregates that are asked of no events too."""


def _most_frequent(rows: list[Event], told: Mapping[str, float], k: int) -> list[object] | None:
    """The most frequent first, of equally frequent ones the smallest; null of too many."""
    counts = Counter(e.value for e in rows)
    ranked: list[object] = sorted(counts, key=lambda value: (-counts[value], value))
    return None if len(counts) > told["limit"] else ranked[:k]


def _is_null(x: object) -> bool:
    return x is None or (isinstance(x, float) and not math.isfinite(x))


def _aggregate(name: str, type_: str, rows: list[Event], told: Mapping[str, float]) -> object:
    values: list = [e.value for e in rows]  # type: ignore[type-arg]
    n = len(values)
    if name in _ALWAYS_ASKED:
        return _ALWAYS_ASKED[name](rows, type_, told)
    if n == 0:
        return None
    if name in {"min", "max", "first", "last"}:
        ordered = sorted(values) if name in {"min", "max"} else _in_order(rows)
        return ordered[0 if name in {"min", "first"} else -1]
    if name in _OF_NUMBERS:
        return _OF_NUMBERS[name](values, type_, told)
    variance = _variance([Fraction(float(v)) for v in values])
    return variance if name == "variance" or variance is None else math.sqrt(variance)


_OF_NUMBERS: Mapping[str, Callable[[list, str, Mapping[str, float]], object]] = {  # type: ignore[type-arg]
    "sum": lambda values, type_, told: _sum(values, type_),
    "avg": lambda values, type_, told: _mean(values, type_),
    "median": lambda values, type_, told: percentile([float(v) for v in values], 50),
    "percentile": lambda values, type_, told: percentile([float(v) for v in values], told["p"]),
}


def _mean(values: list, type_: str) -> object:  # type: ignore[type-arg]
    """Of vectors the mean of each element, as the float of 32 bits nearest to its nearest double."""
    if type_.startswith("vector"):
        means = [_mean(list(elements), "float64") for elements in zip(*values, strict=True)]
        return [struct.unpack("f", struct.pack("f", mean))[0] for mean in means]
    return _double(Fraction(sum(map(Fraction, values))) / len(values))


def percentile(doubles: list[float], p: float) -> float:
    """Return the midpoint, of the 128 parts of its power of two, that holds the nearest rank."""
    place = max(1, math.ceil(Fraction(str(p)) * len(doubles) / 100))
    value = sorted(doubles)[place - 1]
    part, exponent = math.frexp(value)
    if part == 0:
        return 0.0
    return math.copysign(math.ldexp((int(abs(part) * 256) + 0.5) / 256, exponent), value)


def approx_distinct(values: list[bytes], precision: int) -> int:
    """Return Ertl's estimate ("New cardinality estimation algorithms …", 2017, algorithm 6)."""
    size, most = 2**precision, 64 - precision + 1
    ranks: dict[str, int] = {}
    for value in values:
        bits = _hash_bits(value)
        register, rest = bits[:precision], bits[precision:]
        ranks[register] = max(ranks.get(register, 0), len(rest) - len(rest.lstrip("0")) + 1)
    if not ranks:
        return 0
    held = Counter(ranks.values())
    empty, full = 1 - len(ranks) / size, 1 - held[most] / size
    sigma = empty + sum(empty ** (2**k) * 2 ** (k - 1) for k in range(1, 24))
    tau = 0.0
    if full < 1:
        tau = (1 - full - sum((1 - full ** (0.5**k)) ** 2 * 0.5**k for k in range(1, 60))) / 3
    scale = size * sigma + size * tau * 0.5 ** (most - 1)
    scale += sum(count * 0.5**rank for rank, count in held.items() if rank < most)
    estimate: float = size * size / (2 * math.log(2) * scale)
    return round(estimate)


@cache
def _hash_bits(data: bytes) -> str:
    """Mix the length and each eight bytes by SplitMix64, the last filled up with zeros."""
    words = [len(data)]
    words += [
        int.from_bytes(data[i : i + 8].ljust(8, b"\0"), "big") for i in range(0, len(data), 8)
    ]
    state = 0
    for word in words:
        state = ((state ^ word) + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return f"{state:064b}"


def value_bytes(value: object, type_: str) -> bytes:
    """Return a value's big-endian bytes; both zeros are one."""
    if isinstance(value, (str, bytes)):
        return value.encode() if isinstance(value, str) else value
    if isinstance(value, float):
        return struct.pack(">d", value + 0.0)
    if isinstance(value, Decimal):
        scale = int(type_[len("decimal(") : -1].split(",")[1])
        return int(Fraction(value) * 10**scale).to_bytes(16, "big", signed=True)
    if isinstance(value, datetime):
        value = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    elif isinstance(value, date):
        value = (value - date(1970, 1, 1)).days
    assert isinstance(value, int)
    return value.to_bytes({"bool": 1, "int32": 4, "date": 4}.get(type_, 8), "big", signed=True)


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
