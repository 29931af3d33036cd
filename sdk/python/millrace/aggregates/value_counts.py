"""How often each value occurs, up to a number of different ones: the state of ``top_k`` and ``mode``."""

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from typing import Any

from millrace import packed_values
from millrace.aggregates.algebras import State, is_null
from millrace.aggregates.encodings import Encoding
from millrace.aggregates.partials import ValueCounts
from millrace.aggregates.places import Place

_COUNT = struct.Struct(">Q")


@dataclass(frozen=True)
class Frequencies(Encoding):
    """State is (counts,): of each value, as its bytes; None once there are more than the limit.

    What holds too many values holds them still when it is merged, so no order of merging shows. The
    bytes of a tile are its values ascending by their bytes, each with its count; none of too many.

    Attributes:
        limit: the most different values that are counted.
    """

    limit: int
    keeps = ValueCounts

    def init(self) -> State:
        return ({},)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, ({self._write(value): 1},))

    def merge(self, left: State, right: State) -> State:
        if left[0] is not None and right[0] is not None and len(left[0]) < len(right[0]):
            left, right = right, left
        return self.merge_all((left, right))

    def merge_all(self, states: Sequence[State]) -> State:
        if any(counts is None for (counts,) in states):
            return (None,)
        counts = dict(states[0][0])
        for (more,) in states[1:]:
            for value, count in more.items():
                counts[value] = counts.get(value, 0) + count
        return self._limited(counts)

    def encode(self, state: State) -> bytes | None:
        counts = state[0]
        if counts is None:
            return b""
        parts = [value + _COUNT.pack(count) for value, count in sorted(counts.items())]
        return b"".join(parts) if parts else None

    def decode(self, data: bytes) -> State:
        if not data:
            return (None,)
        width = self.type.record.packed
        if width is not None:
            entry = struct.Struct(f">{struct.calcsize(f'>{width}')}sQ")
            return (dict(entry.iter_unpack(data)),)
        counts, at = {}, 0
        while at < len(data):
            _, end = self._read(data, at)
            (counts[data[at:end]],) = _COUNT.unpack_from(data, end)
            at = end + _COUNT.size
        return (counts,)

    def encode_all(self, values: Sequence[Any], places: Sequence[Place] | None) -> bytes | None:
        counts = Counter(value for value in values if not is_null(value))
        return self.encode(self._limited({self._write(v): n for v, n in counts.items()}))

    def most_frequent(self, state: State, most: int) -> list[Any] | None:
        """Return the most frequent values, of equally frequent ones the smallest; None of too many."""
        counts: Mapping[bytes, int] | None = state[0]
        if counts is None:
            return None
        # Only those that may be among them are read.
        least = min(nlargest(most, counts.values()), default=0)
        ranked = sorted((-n, self._read(value, 0)[0]) for value, n in counts.items() if n >= least)
        return [value for _, value in ranked[:most]]

    def _limited(self, counts: Mapping[bytes, int]) -> State:
        return (counts,) if len(counts) <= self.limit else (None,)

    @cached_property
    def _write(self) -> packed_values.Writer:
        return packed_values.value_writer(self.type)

    @cached_property
    def _read(self) -> Callable[[bytes, int], tuple[Any, int]]:
        return packed_values.value_reader(self.type)
