"""Where an event stands among others, and a value that is kept with its place."""

from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where an event stands in the order that ``first`` and ``last`` follow.

    A null event id comes before every other; after the id, the value itself decides.
    """

    event_ms: int
    ingest_ms: int
    event_id: Any = None


class Edge(NamedTuple):
    """What a tile keeps for ``first`` and ``last``: a value with its place."""

    event_ms: int
    ingest_ms: int
    event_id: Any
    value: Any

    @property
    def rank(self) -> tuple[object, ...]:
        """The total order of edges; ids of one source are of one type."""
        named = self.event_id is not None
        return (self.event_ms, self.ingest_ms, named, self.event_id if named else 0, self.value)
