"""How values are spread, by counts in buckets: the state of ``percentile`` and ``median``.

A value is taken as the double nearest to it. Its bucket is its sign, exponent and the first seven
bits behind the leading one, so each power of two has 128 of equal width. A bucket stands for its
midpoint, which is within 1/256 (0.4 %) of each value in it; zero has one of its own.

Source: HdrHistogram's log-linear buckets, and Masson, Rim and Lee, "DDSketch" (2019), for percentiles
to a relative error; whole numbers are all that is added, so no order and no merging can show.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from millrace.aggregates.algebras import State, is_null
from millrace.aggregates.encodings import Encoding
from millrace.aggregates.partials import BucketCounts
from millrace.aggregates.places import Place

MANTISSA_BITS = 7
DROPPED_BITS = 52 - MANTISSA_BITS
LEAST_NORMAL = 2.0**-1022
LIFT_BITS = 54
"""Doubles below the normal ones are multiplied by two to this many; then they are normal."""
LIFT = LIFT_BITS << MANTISSA_BITS
BIAS = 6529
"""Added to a bucket's bits: the smallest double has bucket 1, and negatives those below 0."""
_LOWEST = -(1 << 19)
_MOST_BITS = 7
_DOUBLE, _BITS = struct.Struct(">d"), struct.Struct(">Q")
MILLIONTHS = 10**6
MEDIAN_P = 50


def bucket_of(value: float) -> int:
    """Return the bucket of a finite double: ascending as values are, 0 of zero.

    >>> bucket_of(1.0) - bucket_of(0.5), bucket_of(-1.0) == -bucket_of(1.0), bucket_of(5e-324)
    (128, True, 1)
    """
    if value == 0:
        return 0
    size, lift = abs(value), 0
    if size < LEAST_NORMAL:
        size, lift = size * 2.0**LIFT_BITS, LIFT
    bucket = (int(_BITS.unpack(_DOUBLE.pack(size))[0]) >> DROPPED_BITS) - lift + BIAS
    return bucket if value > 0 else -bucket


def midpoint_of(bucket: int) -> float:
    """Return the value that a bucket stands for.

    >>> midpoint_of(bucket_of(1.0)), midpoint_of(bucket_of(-100.0)), midpoint_of(0)
    (1.00390625, -100.25, 0.0)
    """
    if bucket == 0:
        return 0.0
    bits, factor = abs(bucket) - BIAS, 1.0
    if bits < 1 << MANTISSA_BITS:
        bits, factor = bits + LIFT, 2.0**-LIFT_BITS
    found = _DOUBLE.unpack(_BITS.pack(bits << DROPPED_BITS | 1 << DROPPED_BITS - 1))[0] * factor
    return float(found if bucket > 0 else -found)


def millionths(p: float) -> int:
    """Return a percentage in millionths, in which places are counted."""
    return round(p * MILLIONTHS)


@dataclass(frozen=True)
class Buckets(Encoding):
    """State is (count by bucket,).

    Bytes are, for each bucket in ascending order, how far it lies above the one before (the first:
    above -2^19) and its count, each as a varint: seven bits a byte, the lowest first, the eighth bit
    set in all but the last.
    """

    keeps = BucketCounts

    def init(self) -> State:
        return ({},)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, ({bucket_of(float(value)): 1},))

    def merge(self, left: State, right: State) -> State:
        larger, smaller = (left, right) if len(left[0]) >= len(right[0]) else (right, left)
        return self.merge_all((larger, smaller))

    def merge_all(self, states: Sequence[State]) -> State:
        counts = dict(states[0][0])
        for (more,) in states[1:]:
            for bucket, count in more.items():
                counts[bucket] = counts.get(bucket, 0) + count
        return (counts,)

    def encode(self, state: State) -> bytes | None:
        if not state[0]:
            return None
        numbers, last = [], _LOWEST
        for bucket, count in sorted(state[0].items()):
            numbers += [bucket - last, count]
            last = bucket
        return b"".join([_varint(number) for number in numbers])

    def decode(self, data: bytes) -> State:
        counts, bucket, numbers = {}, _LOWEST, _varints(data)
        for distance in numbers:
            bucket += distance
            counts[bucket] = next(numbers)
        return (counts,)

    def encode_all(self, values: Sequence[Any], places: Sequence[Place] | None) -> bytes | None:
        return self.encode((Counter(bucket_of(float(v)) for v in values if not is_null(v)),))


def percentile_of(counts: dict[int, int], p: float) -> float | None:
    """Return the midpoint of the bucket of nearest rank; None of no values."""
    if not counts:
        return None
    before, rank = 0, rank_of(p, sum(counts.values()))
    for bucket in sorted(counts):
        before += counts[bucket]
        if before >= rank:
            return midpoint_of(bucket)
    raise AssertionError(rank)


def rank_of(p: float, count: int) -> int:
    """Return the place, from 1, of a percentile among some values: ``ceil(p / 100 * count)``.

    >>> rank_of(55, 20), rank_of(0, 20), rank_of(99.9, 1000)
    (11, 1, 999)
    """
    return max(1, -(-millionths(p) * count // (100 * MILLIONTHS)))


def _varint(number: int) -> bytes:
    if number < 1 << _MOST_BITS:
        return bytes((number,))
    parts = bytearray()
    while number >= 1 << _MOST_BITS:
        parts.append(number & (1 << _MOST_BITS) - 1 | 1 << _MOST_BITS)
        number >>= _MOST_BITS
    parts.append(number)
    return bytes(parts)


def _varints(data: Iterable[int]) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & (1 << _MOST_BITS) - 1) << shift
        shift += _MOST_BITS
        if byte < 1 << _MOST_BITS:
            yield number
            number = shift = 0
