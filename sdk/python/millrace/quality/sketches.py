"""Small summaries of many values that add up: how many differ, where they lie, which come twice.

Hashes are 64-bit and the same in every process, so summaries made apart can be merged.
"""

import atexit
from collections.abc import Sequence
from functools import lru_cache
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millrace.errors import SetupError

if TYPE_CHECKING:
    from datasketches import kll_doubles_sketch

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]
Registers = npt.NDArray[np.uint8]

KLL_K = 200
HLL_BITS = 12
MOST_IDENTITIES = 1 << 17

_REGISTERS = 1 << HLL_BITS
_ALPHA = 0.7213 / (1 + 1.079 / _REGISTERS)
_REST_BITS = 64 - HLL_BITS
_GOLDEN = 0x9E3779B97F4A7C15
_ODD = np.uint64(0xD6E8FEB86659FD93)
_INVERSE = np.uint64(pow(int(_ODD), -1, 1 << 64))
_BLOCK = 1 << 14
"""Values of one step: what a step leaves still lies in the cache when the next one takes it, which
makes hashing some five times as fast as in steps over a whole day of 100,000.
"""
_SORTED_AT_ONCE = 256


def mix(values: Hashes) -> Hashes:
    """Spread 64-bit patterns evenly (the finaliser of SplitMix64)."""
    mixed = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _BLOCK):
        z = values[start : start + _BLOCK] + np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        np.bitwise_xor(z, z >> np.uint64(31), out=mixed[start : start + _BLOCK])
    return mixed


def hash_numbers(values: Numbers) -> Hashes:
    """Hash doubles by their bits; -0.0 is 0.0."""
    return mix((values + 0.0).view(np.uint64))


def hash_bytes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Hashes:
    """Hash byte strings that lie one behind another: string i is ``data[offsets[i]:offsets[i+1]]``.

    A polynomial in an odd number modulo 2^64, taken from prefix sums so that no loop runs over the
    strings, then mixed with the length.
    """
    first, last = int(offsets[0]), int(offsets[-1])
    powers = _powers(_ODD, last - first + 1)
    sums = np.zeros(last - first + 1, np.uint64)
    terms = (data[first:last].astype(np.uint64) + np.uint64(1)) * powers[:-1]
    np.cumsum(terms, out=sums[1:])
    starts, ends = offsets[:-1] - first, offsets[1:] - first
    # Equal strings at different places differ by a power, which an odd number's inverse undoes.
    scaled = (sums[ends] - sums[starts]) * _powers(_INVERSE, last - first + 1)[starts]
    return mix(scaled ^ mix((ends - starts).astype(np.uint64)))


def _powers(base: np.uint64, count: int) -> Hashes:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    return powers


def join_hashes(left: Hashes, right: Hashes) -> Hashes:
    """Return the hash of pairs, in order; ``right`` is spread evenly already."""
    return left * _ODD + right


def hll_registers(hashes: Hashes) -> Registers:
    """Return the HyperLogLog registers of hashes: 4,096 bytes, 1.6 % standard error."""
    registers = np.zeros(_REGISTERS, np.uint8)
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        rest = block & np.uint64((1 << _REST_BITS) - 1)
        # The exponent of a double is the place of the highest bit; 52 bits convert exactly.
        _, exponent = np.frexp(rest.astype(np.float64))
        rank = (_REST_BITS + 1 - exponent).astype(np.uint8)
        np.maximum.at(registers, (block >> np.uint64(_REST_BITS)).astype(np.int64), rank)
    return registers


def hll_estimate(registers: Registers) -> float:
    """Return how many different hashes there were.

    Source: Flajolet and others, HyperLogLog (2007), with linear counting for few.
    """
    of_rank = np.bincount(registers, minlength=_REST_BITS + 2)
    zeros = int(of_rank[0])
    raw = _ALPHA * _REGISTERS**2 / float(of_rank @ np.ldexp(1.0, -np.arange(len(of_rank))))
    if raw <= 2.5 * _REGISTERS and zeros:
        return float(_REGISTERS * np.log(_REGISTERS / zeros))
    return raw


def new_kll() -> "kll_doubles_sketch":
    """Return an empty sketch of quantiles.

    Raises:
        SetupError: the extra ``quality`` is not installed.
    """
    return _datasketches().kll_doubles_sketch(KLL_K)


def add_to_kll(sketch: "kll_doubles_sketch", values: Numbers) -> None:
    """Add values to a sketch of quantiles.

    In another order than they come, which means nothing to the sketch: it sorts what it holds again
    and again, and short runs that are sorted already halve its time.
    """
    runs = values.copy()
    whole = len(runs) - len(runs) % _SORTED_AT_ONCE
    runs[:whole].reshape(-1, _SORTED_AT_ONCE).sort(axis=1)
    sketch.update(runs)


def read_kll(data: bytes) -> "kll_doubles_sketch":
    """Return a serialised sketch of quantiles.

    Raises:
        SetupError: the extra ``quality`` is not installed.
    """
    return _datasketches().kll_doubles_sketch.deserialize(data)


@lru_cache(maxsize=4_096)
def kept_kll(data: bytes) -> "kll_doubles_sketch":
    """Return a serialised sketch to ask, not to change: the same one for the same bytes.

    A day is the baseline of many others, and a sketch sorts itself when it is first asked.

    Raises:
        SetupError: the extra ``quality`` is not installed.
    """
    return read_kll(data)


# The binding takes what still lives at the very end for leaked, and says so on standard error.
atexit.register(kept_kll.cache_clear)


def _datasketches() -> Any:
    try:
        import datasketches
    except ImportError as error:
        raise SetupError(
            "the package datasketches is not installed",
            where="profiles of data quality",
            fix="install the extra: millrace[quality]",
        ) from error
    return datasketches


class Identities:
    """Counts rows that share an identity, out of 64-bit hashes.

    Exact up to 131,072 different identities. Beyond, only identities whose hash is small are kept
    (half as many at each step), with all of their rows, and the count is scaled up.

    Source: coordinated sampling by hash, as in theta sketches.

    Attributes:
        hashes: the identities kept, ascending.
        counts: rows of each.
        level: how often the kept range of hashes was halved.
    """

    def __init__(self) -> None:
        self.hashes = np.empty(0, np.uint64)
        self.counts = np.empty(0, np.int64)
        self.level = 0

    def add(self, hashes: Hashes) -> None:
        """Count rows by the hashes of their identities."""
        self._take(*np.unique(hashes, return_counts=True))

    def merge(self, other: "Identities") -> None:
        """Add what another one counted."""
        self.level = max(self.level, other.level)
        self._take(other.hashes, other.counts)

    @property
    def duplicates(self) -> int:
        """Rows beyond the first of each identity."""
        extra = int(self.counts.sum()) - len(self.counts)
        return extra << self.level

    def _take(self, hashes: Hashes, counts: npt.NDArray[np.int64]) -> None:
        """Add different identities, ascending, and the rows of each."""
        if len(self.hashes):
            joined = np.concatenate([self.hashes, hashes])
            tally = np.concatenate([self.counts, counts])
            hashes, place = np.unique(joined, return_inverse=True)
            counts = np.bincount(place, weights=tally, minlength=len(hashes)).astype(np.int64)
        while True:
            kept = np.searchsorted(hashes, np.uint64((1 << (64 - self.level)) - 1), side="right")
            hashes, counts = hashes[:kept], counts[:kept]
            if kept <= MOST_IDENTITIES:
                break
            self.level += 1
        self.hashes, self.counts = hashes, counts

    def document(self) -> dict[str, Any]:
        """Return the state as arrays and numbers, for ``from_document``."""
        return {"level": self.level, "hashes": self.hashes, "counts": self.counts}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Identities":
        """Return what ``document`` was made of."""
        made = cls()
        made.level = int(document["level"])
        made.hashes, made.counts = document["hashes"], document["counts"]
        return made


def tails_of(values: Numbers, count: int) -> tuple[Numbers, Numbers]:
    """Return the smallest and the largest values, both ascending; at most ``count`` of each."""
    step = isqrt(len(values) // count)
    if step > 1:
        # As many of a sample are as far out as its own count-th: what lies between is out. With
        # this step the sample and what is left are about as long.
        sample = np.sort(values[::step])
        values = values[(values <= sample[count - 1]) | (values >= sample[-count])]
    ordered = np.sort(values)
    return ordered[:count].copy(), ordered[-count:].copy()


def mode_share(values: Sequence[float], ranks: Sequence[float]) -> float:
    """Return the width of the widest run of equal values in a list of quantiles."""
    widest, start = 0.0, 0
    for i in range(1, len(values)):
        if values[i] != values[start]:
            start = i
        widest = max(widest, ranks[i] - ranks[start])
    return widest
