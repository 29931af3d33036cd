"""The oldest or the newest few values with their places: the states of ``first_k`` and ``last_k``."""

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar

from millrace.aggregates.algebras import State, is_null
from millrace.aggregates.encodings import Encoding, edge_reader, edge_writer
from millrace.aggregates.partials import FirstValues, LastValues
from millrace.aggregates.places import Edge, Place


@dataclass(frozen=True)
class EdgeValues(Encoding, ABC):
    """State is (edges,), a tuple of ``Edge``: the outermost one is the first.

    Attributes:
        k: how many are kept.
        is_descending: the newest is the first.
    """

    k: int
    is_descending: ClassVar[bool]

    def init(self) -> State:
        return ((),)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, ((_edge(place, value),),))

    def merge(self, left: State, right: State) -> State:
        one, other = left[0], right[0]
        if not one or not other:
            return left if one else right
        # What was kept of two tiles mostly lies apart.
        if self._precedes(one, other):
            return ((*one, *other)[: self.k],)
        if self._precedes(other, one):
            return ((*other, *one)[: self.k],)
        return (self._kept((*one, *other)),)

    def encode(self, state: State) -> bytes | None:
        return b"".join(map(self._write, state[0])) if state[0] else None

    def decode(self, data: bytes) -> State:
        edges, at = [], 0
        while at < len(data):
            edge, at = self._read(data, at)
            edges.append(edge)
        return (tuple(edges),)

    def encode_all(self, values: Sequence[Any], places: Sequence[Place] | None) -> bytes | None:
        events = zip(values, places or (), strict=True)
        edges = [_edge(place, value) for value, place in events if not is_null(value)]
        return self.encode((self._kept(edges),))

    def _precedes(self, one: Sequence[Edge], other: Sequence[Edge]) -> bool:
        last_ms, first_ms = one[-1].event_ms, other[0].event_ms
        return last_ms > first_ms if self.is_descending else last_ms < first_ms

    def _kept(self, edges: Sequence[Edge]) -> tuple[Edge, ...]:
        ordered = sorted(edges, key=attrgetter("rank"), reverse=self.is_descending)
        return tuple(ordered[: self.k])

    @cached_property
    def _write(self) -> Callable[[Edge], bytes]:
        return edge_writer(self.type)

    @cached_property
    def _read(self) -> Callable[[bytes, int], tuple[Edge, int]]:
        return edge_reader(self.type)


class Oldest(EdgeValues):
    """The oldest, in ascending order."""

    keeps = FirstValues
    is_descending = False


class Newest(EdgeValues):
    """The newest, in descending order."""

    keeps = LastValues
    is_descending = True


def _edge(place: Place, value: Any) -> Edge:
    # Both zeros of a double are one.
    return Edge(*place, value + 0.0 if isinstance(value, float) else value)
