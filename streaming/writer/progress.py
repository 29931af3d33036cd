"""How far the pipeline has come: up to when everything that was sent is in the store.

Flink says where it stands in the source topic with each checkpoint, and by then its tiles are in
the tile topic. So an instant is reached once (1) Flink has committed the offsets at which the
source topic ended then, and (2) the writer has stored the tile topic up to where it ended when that
was seen. Under steady load this trails by a checkpoint, while nothing lags.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Offsets = Mapping[int, int]

_MOST_SAMPLES = 600


class Ends(NamedTuple):
    """Where the topics of a version stand, each read after the one before it.

    Attributes:
        at_ms: an instant before all of them.
        source_begin: of the source topic, the oldest record still there.
        source_end: of the source topic, the offset of the next record.
        committed: what Flink has committed; absent where nothing was.
        tile_end: of the tile topic, for the partitions of this writer.
        applied: of the tile topic, what is stored.
    """

    at_ms: int
    source_begin: Offsets
    source_end: Offsets
    committed: Offsets
    tile_end: Offsets
    applied: Offsets


class PipelineProgress(NamedTuple):
    """What is told of a version.

    Attributes:
        progress_ms: everything sent before is in the store; None if that is not known.
        source_lag: records of the source topic that Flink has not committed.
        tile_lag: records of the tile topic that are not stored.
    """

    progress_ms: int | None
    source_lag: int
    tile_lag: int


@dataclass
class Ladder:
    """The climb of one version from what was sent to what is stored."""

    _sent: deque[tuple[int, Offsets]] = field(default_factory=deque)
    _in_tiles: deque[tuple[int, Offsets]] = field(default_factory=deque)
    _applied: Offsets = field(default_factory=dict)
    _progress_ms: int | None = None

    def climb(self, ends: Ends) -> PipelineProgress:
        """Take in where the topics stand now."""
        if any(ends.applied.get(p, 0) < offset for p, offset in self._applied.items()):
            # The store lost what it had; whatever was reached before counts no more.
            self._progress_ms = None
            self._in_tiles.clear()
        self._applied = dict(ends.applied)
        committed = {p: max(ends.committed.get(p, 0), b) for p, b in ends.source_begin.items()}
        self._sent.append((ends.at_ms, dict(ends.source_end)))
        if len(self._sent) > _MOST_SAMPLES:
            # Every second one: a long outage is remembered in larger steps.
            self._sent = deque(list(self._sent)[::2])
        reached = _last_reached(self._sent, committed)
        if reached is not None:
            self._in_tiles.append((reached, dict(ends.tile_end)))
        stored = _last_reached(self._in_tiles, ends.applied)
        if stored is not None:
            self._progress_ms = stored
        return PipelineProgress(
            self._progress_ms, _lag(ends.source_end, committed), _lag(ends.tile_end, ends.applied)
        )


def _last_reached(steps: deque[tuple[int, Offsets]], offsets: Offsets) -> int | None:
    reached = None
    while steps and all(offsets.get(p, 0) >= end for p, end in steps[0][1].items()):
        reached = steps.popleft()[0]
    return reached


def _lag(ends: Offsets, offsets: Offsets) -> int:
    return sum(max(end - offsets.get(p, 0), 0) for p, end in ends.items())
