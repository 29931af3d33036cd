"""How many different values there are, estimated: the state of ``approx_distinct``.

A value's hash names a register and a rank, the place of the first one in its other bits; a register
keeps the highest rank. So neither order nor merging can show.

Source: Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog" (2007), with the estimator of Ertl, "New
cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6, which needs no
table of corrections and no second method for small numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import log, sqrt
from typing import Any

from millrace.aggregates.algebras import State, is_null
from millrace.aggregates.encodings import Encoding
from millrace.aggregates.partials import Registers
from millrace.aggregates.places import Place

HASH_BITS = 64
GAMMA = 0x9E37_79B9_7F4A_7C15
MIXERS = (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB)
_MASK = 2**HASH_BITS - 1
_RANK_BITS = 6
_ENTRY_BYTES = 3
PER_CERTAINTY = 2 * log(2)


def hash_of(data: bytes) -> int:
    """Return the hash of a value's bytes, the same for ever and everywhere.

    The length, then each eight bytes, big-endian, the last filled up with zeros, are mixed in by
    the finalizer of SplitMix64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014); the
    constants are Stafford's variant 13.

    >>> hash_of(b""), hash_of((1).to_bytes(8, "big"))
    (16294208416658607535, 442399275926196888)
    """
    found = _mixed(len(data))
    for at in range(0, len(data), 8):
        found = _mixed(found ^ int.from_bytes(data[at : at + 8].ljust(8, b"\0"), "big"))
    return found


def _mixed(word: int) -> int:
    word = (word + GAMMA) & _MASK
    word = (word ^ word >> 30) * MIXERS[0] & _MASK
    word = (word ^ word >> 27) * MIXERS[1] & _MASK
    return word ^ word >> 31


@dataclass(frozen=True)
class RankRegisters(Encoding):
    """State is (rank by register,), of the registers that have one.

    Bytes are one for each register, or where that is shorter three for each that has a rank: the
    number of the register and in the lowest six bits its rank, ascending.

    Attributes:
        precision: there are two to this many registers.
    """

    precision: int
    keeps = Registers

    def init(self) -> State:
        return ({},)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, self._of([value]))

    def merge(self, left: State, right: State) -> State:
        larger, smaller = (left, right) if len(left[0]) >= len(right[0]) else (right, left)
        return self.merge_all((larger, smaller))

    def merge_all(self, states: Sequence[State]) -> State:
        ranks = dict(states[0][0])
        for (more,) in states[1:]:
            for register, rank in more.items():
                if rank > ranks.get(register, 0):
                    ranks[register] = rank
        return (ranks,)

    def encode(self, state: State) -> bytes | None:
        ranks, size = state[0], 1 << self.precision
        if not ranks:
            return None
        if _ENTRY_BYTES * len(ranks) < size:
            entries = (register << _RANK_BITS | ranks[register] for register in sorted(ranks))
            return b"".join([entry.to_bytes(_ENTRY_BYTES, "big") for entry in entries])
        return bytes([ranks.get(register, 0) for register in range(size)])

    def decode(self, data: bytes) -> State:
        if len(data) == 1 << self.precision:
            return ({register: rank for register, rank in enumerate(data) if rank},)
        ranks = {}
        for at in range(0, len(data), _ENTRY_BYTES):
            entry = int.from_bytes(data[at : at + _ENTRY_BYTES], "big")
            ranks[entry >> _RANK_BITS] = entry & (1 << _RANK_BITS) - 1
        return (ranks,)

    def encode_all(self, values: Sequence[Any], places: Sequence[Place] | None) -> bytes | None:
        return self.encode(self._of({value for value in values if not is_null(value)}))

    def _of(self, values: Sequence[Any] | set[Any]) -> State:
        ranks: dict[int, int] = {}
        free = HASH_BITS - self.precision
        for value in values:
            found = hash_of(self.value_bytes(value))
            register = found >> free
            rank = free - (found & (1 << free) - 1).bit_length() + 1
            if rank > ranks.get(register, 0):
                ranks[register] = rank
        return (ranks,)


def estimate(precision: int, ranks: dict[int, int]) -> int:
    """Return the number of different values that registers stand for."""
    size, most = 1 << precision, HASH_BITS - precision + 1
    counts = [0] * (most + 1)
    counts[0] = size - len(ranks)
    for rank in ranks.values():
        counts[rank] += 1
    # The kernel takes these very steps, of many counts at once: the doubles are the same.
    scale = size * tau(1 - counts[most] / size)
    for rank in range(most - 1, 0, -1):
        scale = 0.5 * (scale + counts[rank])
    scale += empty_share(precision)[counts[0]]
    return round(size * size / (PER_CERTAINTY * scale))


@cache
def empty_share(precision: int) -> tuple[float, ...]:
    """Return what empty registers add to the scale, by how many there are."""
    size = 1 << precision
    return tuple(size * sigma(count / size) for count in range(size + 1))


def sigma(share: float) -> float:
    """Ertl's sigma of the share of empty registers; infinite where all are."""
    if share == 1:
        return float("inf")
    power, weight, total = share, 1.0, share
    while True:
        power *= power
        before = total
        total += power * weight
        weight += weight
        if total == before:
            return total


def tau(share: float) -> float:
    """Ertl's tau of the share of registers below the highest rank."""
    if share in {0.0, 1.0}:
        return 0.0
    power, weight, total = share, 1.0, 1 - share
    while True:
        power = sqrt(power)
        before = total
        weight *= 0.5
        total -= (1 - power) ** 2 * weight
        if total == before:
            return total / 3
