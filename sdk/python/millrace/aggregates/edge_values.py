"""The newest few values with their places: the state of ``last_k``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from millrace.aggregates.algebras import State, is_null
from millrace.aggregates.encodings import Encoding, edge_reader, edge_writer
from millrace.aggregates.partials import LastValues
from millrace.aggregates.places import Edge, Place


@dataclass(frozen=True)
class Newest(Encoding):
    """State is (edges,), a tuple of ``Edge``, newest first.

    Attributes:
        k: how many are kept.
    """

    k: int
    keeps = LastValues

    def init(self) -> State:
        return ((),)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, ((_edge(place, value),),))

    def merge(self, left: State, right: State) -> State:
        one, other = left[0], right[0]
        if not one or not other:
            return left if one else right
        if one[-1].event_ms > other[0].event_ms:
            return ((*one, *other)[: self.k],)
        if other[-1].event_ms > one[0].event_ms:
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

    def _kept(self, edges: Sequence[Edge]) -> tuple[Edge, ...]:
        return tuple(sorted(edges, key=attrgetter("rank"), reverse=True)[: self.k])

    @cached_property
    def _write(self) -> Callable[[Edge], bytes]:
        return edge_writer(self.type)

    @cached_property
    def _read(self) -> Callable[[bytes, int], tuple[Edge, int]]:
        return edge_reader(self.type)


def _edge(place: Place, value: Any) -> Edge:
    # Both zeros of a double are one.
    return Edge(*place, value + 0.0 if isinstance(value, float) else value)
