"""Which values there are, up to a limit: the state of ``distinct``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millrace.aggregates.algebras import State, is_null
from millrace.aggregates.encodings import Encoding, join_values, split_values
from millrace.aggregates.partials import DistinctValues
from millrace.aggregates.places import Place


@dataclass(frozen=True)
class Values(Encoding):
    """State is (the bytes of the values,), a frozenset.

    Beyond the limit the smallest by their bytes are kept: those of a merge are then the smallest of
    all events, in whatever order they were merged.

    Attributes:
        limit: how many are kept.
    """

    limit: int
    keeps = DistinctValues

    def init(self) -> State:
        return (frozenset(),)

    def update(self, state: State, value: Any, place: Place) -> State:
        return (
            state if is_null(value) else self.merge(state, (frozenset([self.value_bytes(value)]),))
        )

    def merge(self, left: State, right: State) -> State:
        return self.merge_all((left, right))

    def merge_all(self, states: Sequence[State]) -> State:
        values = frozenset[bytes]().union(*[values for (values,) in states])
        return (values,) if len(values) <= self.limit else (self._smallest(values),)

    def encode(self, state: State) -> bytes | None:
        return join_values(self.type, sorted(state[0])) if state[0] else None

    def decode(self, data: bytes) -> State:
        return (frozenset(split_values(self.type, data)),)

    def encode_all(self, values: Sequence[Any], places: Sequence[Place] | None) -> bytes | None:
        found = frozenset(self.value_bytes(value) for value in values if not is_null(value))
        return self.encode((self._smallest(found),))

    def _smallest(self, values: frozenset[bytes]) -> frozenset[bytes]:
        return frozenset(sorted(values)[: self.limit])
