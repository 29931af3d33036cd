"""How a state grows by a run of tiles: one form for each algebra, over whole columns.

Tiles of an entity share no time, so what is oldest or newest of them is found by their order, and
sums and extremes are built-in functions over a column. Values come as they were stored, see
``TileReader``: a decimal is added up as a whole number and becomes a decimal once.
"""

from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import fsum, isfinite
from operator import mul
from typing import Any

from millrace.aggregates import Algebra, State, Unsupported, algebras, check_forms
from millrace.aggregates.algebras import (
    AtEdge,
    Counting,
    CountingRows,
    Extreme,
    ExtremeTime,
    Moments,
    Totals,
    VectorTotals,
)
from millrace.aggregates.buckets import Buckets
from millrace.aggregates.distinct import Values
from millrace.aggregates.edge_values import Newest, Oldest
from millrace.aggregates.encodings import Encoding
from millrace.aggregates.partials import Last, Min
from millrace.aggregates.registers import RankRegisters
from millrace.aggregates.value_counts import Frequencies
from millrace.codec import Codec
from millrace.packed_values import EXACT, from_struct


@dataclass
class HeldTiles:
    """Tiles that some window holds, oldest first.

    Attributes:
        columns: by place of the slot, values of the tiles as they were stored, None where absent.
        tiles: their bytes.
        is_full: no value is absent in any column.
    """

    codec: Codec
    columns: Mapping[int, Sequence[Any]]
    tiles: Sequence[bytes]
    is_full: bool

    def __post_init__(self) -> None:
        self._decoded: dict[int, tuple[Any, ...]] = {}

    def there(self, slot: int, first: int, end: int) -> Sequence[Any]:
        """Return the values that are not absent of a column's tiles in ``[first, end)``."""
        column = self.columns[slot][first:end]
        return column if self.is_full else [value for value in column if value is not None]

    def first_of(self, slot: int, places: Iterable[int]) -> Any:
        """Return the first value that is there in a slot, of tiles by place; None of none."""
        at, bit = slot // 8, 1 << slot % 8
        for place in places:
            if self.codec.bits(self.tiles[place])[at] & bit:
                if place not in self._decoded:
                    self._decoded[place] = self.codec.decode(self.tiles[place]).values
                return self._decoded[place][slot]
        return None


Fold = Callable[[State, HeldTiles, int, int], State]
"""Returns a state with the tiles of ``[first, end)`` added; all are older than what it is of."""

Slots = tuple[int, ...]
"""Places of an algebra's columns in a tile, one per partial."""


def fold_of(algebra: Algebra, slots: Slots) -> Fold:
    """Return how states of an algebra grow."""
    return _FOLDS[type(algebra)](algebra, slots)


def columns_of(algebra: Algebra, slots: Slots) -> Slots:
    """Return which columns its fold reads of every tile."""
    return () if type(algebra) is AtEdge else slots


def _counts(algebra: Algebra, slots: Slots) -> Fold:
    (slot,) = slots
    return lambda state, held, first, end: (state[0] + sum(held.columns[slot][first:end]),)


def _totals(algebra: Totals, slots: Slots) -> Fold:
    counts_at, sums_at = slots
    add = _adder(algebra)

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        counts = held.columns[counts_at][first:end]
        count = sum(counts)
        if not count:
            return state
        sums: Sequence[Any] = held.columns[sums_at][first:end]
        if not held.is_full:
            sums = [one for one, n in zip(sums, counts, strict=True) if n]
            if None in sums:  # one had no room for it
                return algebra.merge(state, (count, None, 0.0))
        return algebra.merge(state, (count, add(sums), 0.0))

    return fold


def _adder(algebra: Totals) -> Callable[[Sequence[Any]], Any]:
    if algebra.type.kind == "float64":
        return _sum_of_doubles
    if algebra.type.is_integer:
        return _whole
    shift = -algebra.type.scale
    return lambda sums: Decimal(_whole(sums)).scaleb(shift, context=EXACT)


def _sum_of_doubles(values: Sequence[float]) -> float:
    try:
        return fsum(values)
    except OverflowError:
        return float("inf")  # as adding them up one by one would have it; it becomes null


def _whole(unscaled: Sequence[bytes]) -> int:
    return sum([int.from_bytes(one, "big", signed=True) for one in unscaled])


def _vectors(algebra: VectorTotals, slots: Slots) -> Fold:
    counts_at, sums_at = slots

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        sums = held.there(sums_at, first, end)
        if not sums:
            return state
        added = list(map(sum, zip(*sums, strict=True)))
        return algebra.merge(state, (sum(held.columns[counts_at][first:end]), added))

    return fold


def _extreme(algebra: Extreme, slots: Slots) -> Fold:
    (slot,) = slots
    pick: Any = min if algebra.keeps is Min else max
    convert = from_struct(algebra.type)
    is_decimal = algebra.type.kind == "decimal"

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        values = held.there(slot, first, end)
        if not values:
            return state
        found = pick(values, key=_unscaled) if is_decimal else pick(values)
        return algebra.merge(state, (found if convert is None else convert(found),))

    return fold


def _unscaled(stored: bytes) -> int:
    return int.from_bytes(stored, "big", signed=True)


def _time(algebra: ExtremeTime, slots: Slots) -> Fold:
    (slot,) = slots
    pick: Any = max if algebra.keeps.suffix == "last_ms" else min

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        instants = held.there(slot, first, end)
        return algebra.merge(state, (pick(instants),)) if instants else state

    return fold


def _edge(algebra: AtEdge, slots: Slots) -> Fold:
    (slot,) = slots
    if algebra.keeps is Last:

        def newest(state: State, held: HeldTiles, first: int, end: int) -> State:
            if state[0] is not None:
                return state
            return (held.first_of(slot, range(end - 1, first - 1, -1)),)

        return newest

    def oldest(state: State, held: HeldTiles, first: int, end: int) -> State:
        found = held.first_of(slot, range(first, end))
        return state if found is None else (found,)

    return oldest


def _moments(algebra: Moments, slots: Slots) -> Fold:
    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        counts, means, m2s = [held.columns[slot][first:end] for slot in slots]
        if not held.is_full:
            parts = [part for part in zip(counts, means, m2s, strict=True) if part[0]]
            if not parts:
                return state
            counts, means, m2s = zip(*parts, strict=True)
            if None in means or None in m2s:
                return algebra.merge(state, (sum(counts), None, None))
        return algebra.merge(state, _moments_of(counts, means, m2s)) if counts else state

    return fold


def _moments_of(counts: Sequence[int], means: Sequence[float], m2s: Sequence[float]) -> State:
    """Return the moments of all of some parts; equal means give just these."""
    count, base = sum(counts), means[0]
    mean = base + sum(map(mul, counts, [one - base for one in means])) / count
    apart = [one - mean for one in means]
    m2 = sum(m2s) + sum(map(mul, counts, map(mul, apart, apart)))
    return (count, mean, m2) if isfinite(mean) and isfinite(m2) else (count, None, None)


def _encoded(algebra: Encoding, slots: Slots) -> Fold:
    (slot,) = slots

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        states = [algebra.decode(data) for data in held.there(slot, first, end)]
        return algebra.merge_all([state, *states]) if states else state

    return fold


def _encoded_once(algebra: Encoding, slots: Slots) -> Fold:
    """The same where to add a state again changes nothing: equal bytes are decoded once."""
    (slot,) = slots

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        states = [algebra.decode(data) for data in dict.fromkeys(held.there(slot, first, end))]
        return algebra.merge_all([state, *states]) if states else state

    return fold


def _newest_few(algebra: Newest, slots: Slots) -> Fold:
    (slot,) = slots

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        column = held.columns[slot]
        for place in range(end - 1, first - 1, -1):
            if len(state[0]) >= algebra.k:
                break
            if column[place] is not None:
                state = algebra.merge(state, algebra.decode(column[place]))
        return state

    return fold


def _oldest_few(algebra: Oldest, slots: Slots) -> Fold:
    (slot,) = slots

    def fold(state: State, held: HeldTiles, first: int, end: int) -> State:
        oldest = algebra.init()
        for data in held.columns[slot][first:end]:
            if len(oldest[0]) >= algebra.k:
                return oldest
            if data is not None:
                oldest = algebra.merge(oldest, algebra.decode(data))
        return algebra.merge(oldest, state)

    return fold


_FOLDS: Mapping[type[Any], Callable[[Any, Slots], Fold]] = {
    Counting: _counts,
    CountingRows: _counts,
    Totals: _totals,
    VectorTotals: _vectors,
    Extreme: _extreme,
    ExtremeTime: _time,
    AtEdge: _edge,
    Moments: _moments,
    Values: _encoded_once,
    RankRegisters: _encoded_once,
    Frequencies: _encoded,
    Buckets: _encoded,
    Newest: _newest_few,
    Oldest: _oldest_few,
}


def _kinds(of: type[Any]) -> Iterator[type[Any]]:
    kind: type[Any]
    for kind in of.__subclasses__():
        if ABC not in kind.__bases__:
            yield kind
        yield from _kinds(kind)


_ELSEWHERE: Mapping[type[Any], Unsupported] = {
    algebras.Newest: Unsupported(
        "no aggregate keeps it: it stands in the header of each tile", "ask the codec for it"
    )
}
check_forms("the folding of tiles", list(dict.fromkeys(_kinds(Algebra))), _FOLDS, _ELSEWHERE)
