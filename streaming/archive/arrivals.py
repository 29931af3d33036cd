"""When each event id arrived last: the memory that duplicates are judged by.

The newest ids are in a dict; older ones in sorted arrays, 24 bytes an id, that are dropped as a
whole once the horizon has passed them (the layout of a log-structured merge tree, Bigtable's,
without the disk). What is needed is therefore the ids of one horizon: 24 MB for a million.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DIGEST = 16
_RECENT = 250_000


def id_key(kind: str) -> Callable[[Any], bytes]:
    """Return the function from a non-null event id of a type to 16 bytes.

    Integers are themselves; others are hashed to 128 bits, where no two ids of any real topic
    meet.
    """
    if kind in {"int32", "int64", "timestamp"}:
        return lambda value: int(value).to_bytes(_DIGEST, "big", signed=True)
    if kind == "bytes":
        return lambda value: blake2b(value, digest_size=_DIGEST).digest()
    if kind == "float64":
        # Equal numbers are equal ids: -0.0 is 0.0.
        return lambda value: blake2b(repr(value + 0.0).encode(), digest_size=_DIGEST).digest()
    return lambda value: blake2b(str(value).encode(), digest_size=_DIGEST).digest()


@dataclass(frozen=True)
class _Segment:
    keys: "npt.NDArray[np.bytes_]"
    arrived_ms: "npt.NDArray[np.int64]"
    newest_ms: int


class Arrivals:
    """The last arrival of each id within a horizon.

    Args:
        horizon_ms: an arrival longer ago than this is forgotten, sooner or later.
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._recent: dict[bytes, int] = {}
        self._segments: list[_Segment] = []
        self._newest_ms = -(2**62)

    def __len__(self) -> int:
        return len(self._recent) + sum(len(segment.keys) for segment in self._segments)

    def recall(self, keys: Sequence[bytes]) -> None:
        """Bring what is known of these ids to hand; needed before ``is_duplicate`` of them."""
        import numpy as np

        if len(self._recent) >= _RECENT:
            self._freeze()
        if not self._segments or not keys:
            return
        asked = np.frombuffer(b"".join(keys), dtype=f"S{_DIGEST}")
        for segment in self._segments:
            # The last of equal keys is the newest.
            places = np.searchsorted(segment.keys, asked, side="right") - 1
            found = (places >= 0) & (segment.keys[places] == asked)
            for i in np.flatnonzero(found).tolist():
                self.note(keys[i], int(segment.arrived_ms[places[i]]))

    def is_duplicate(self, key: bytes, arrived_ms: int) -> bool:
        """Note an arrival; true if the one before it lies at most the horizon back.

        The one before counts whether it was itself a duplicate or not, so a copy that is sent
        again and again stays a copy.
        """
        before = self._recent.get(key)
        self.note(key, arrived_ms)
        return before is not None and arrived_ms - before <= self._horizon_ms

    def note(self, key: bytes, arrived_ms: int) -> None:
        """Remember an arrival; a later one that is known already stays."""
        known = self._recent.get(key)
        if known is None or known < arrived_ms:
            self._recent[key] = arrived_ms
            self._newest_ms = max(self._newest_ms, arrived_ms)

    def note_all(self, arrivals: Iterable[tuple[bytes, int]]) -> None:
        """Remember many arrivals, in any order."""
        for key, arrived_ms in arrivals:
            self.note(key, arrived_ms)
            if len(self._recent) >= _RECENT:
                self._freeze()

    def _freeze(self) -> None:
        """Turn the dict into a segment, merge segments of like size, drop what is forgotten."""
        import numpy as np

        keys = np.frombuffer(b"".join(self._recent), dtype=f"S{_DIGEST}")
        segment = _sorted(keys, np.fromiter(self._recent.values(), np.int64, len(keys)))
        self._recent = {}
        oldest_ms = self._newest_ms - self._horizon_ms
        self._segments = [s for s in self._segments if s.newest_ms >= oldest_ms]
        while self._segments and len(self._segments[-1].keys) < 2 * len(segment.keys):
            before = self._segments.pop()
            keys = np.concatenate([before.keys, segment.keys])
            arrived = np.concatenate([before.arrived_ms, segment.arrived_ms])
            fresh = arrived >= oldest_ms
            segment = _sorted(keys[fresh], arrived[fresh])
        self._segments.append(segment)


def _sorted(keys: "npt.NDArray[np.bytes_]", arrived_ms: "npt.NDArray[np.int64]") -> _Segment:
    import numpy as np

    order = np.lexsort((arrived_ms, keys))
    return _Segment(keys[order], arrived_ms[order], int(arrived_ms.max(initial=-(2**62))))
