"""Events of many keys on one sorted line of integers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Positions = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

# Beyond this a packed (key, time) could leave int64; times are then replaced by their ranks.
_LINE_LIMIT = 2**62
# Instants are clamped here so that window arithmetic on them cannot wrap.
_FARTHEST_MS = 2**61


@dataclass(frozen=True)
class Stamped:
    """Rows with a key code and an instant (epoch milliseconds) each."""

    codes: Int64s
    instants_ms: Int64s

    def take(self, rows: Positions) -> "Stamped":
        """Gather rows."""
        return Stamped(self.codes[rows], self.instants_ms[rows])


class Axis:
    """Packs (key code, instant) into one int64, so that one search serves all keys.

    Args:
        rows: what to pack; at least one row.
        keys: number of key codes; they count from 0.
    """

    def __init__(self, rows: Stamped, keys: int) -> None:
        instants = rows.instants_ms
        self._lowest, self._highest = int(instants.min()), int(instants.max())
        self._distinct: Int64s | None = None
        self._span = self._highest - self._lowest + 2
        if self._span * keys >= _LINE_LIMIT:
            self._distinct = np.unique(instants)
            self._span = len(self._distinct) + 1
        self.line: Int64s = self.pack(rows.codes, instants)

    def pack(self, codes: Int64s, instants: Int64s) -> Int64s:
        """Return the place on the line of (code, first known instant not before the given one)."""
        if self._distinct is not None:
            return codes * self._span + np.searchsorted(self._distinct, instants)
        places = np.clip(instants, self._lowest, self._highest + 1)
        places -= self._lowest
        places += codes * self._span
        return places

    def before(self, codes: Int64s, instants: Int64s | None) -> Positions:
        """Count the entries of the (sorted) line that lie before (code, instant).

        Instants None: before the whole key. Fast if the arguments are sorted.
        """
        probes = codes * self._span if instants is None else self.pack(codes, instants)
        return np.searchsorted(self.line, probes)


def clamp_instants(instants: Int64s) -> Int64s:
    """Keep instants where window arithmetic cannot leave int64."""
    return np.clip(instants, -_FARTHEST_MS, _FARTHEST_MS)
