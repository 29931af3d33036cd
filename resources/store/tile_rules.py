"""What holds for every change of a tiles hash, whoever makes it: stream, upload or a clearing.

- A tile gives way only to one of at least as many rows: within one version tiles only grow, and a
  restarted Flink steps back before it converges.
- The counter ``s`` moves, and the entity's cached row goes, so that no row merged from earlier tiles
  survives.
- The key's expiry is kept ahead of the longest window.

The scripts of this folder begin with ``SHARED``; each touches keys of one hash tag.
"""

from typing import NamedTuple

from millrace.durations import DAY_MS

SLACK_MS = 2 * DAY_MS
"""Tiles and keys outlive their reach by this much, as clocks may be wrong."""

EXPIRY_STEP_MS = DAY_MS // 2
"""A key's expiry is moved once it has come nearer by this much, not with every change."""

PRUNE_EVERY = 64
"""Changes of a hash between two looks for tiles out of reach."""


class TileRules(NamedTuple):
    """What is asked of a version's packed tiles.

    Attributes:
        rows_at: where in one of them its number of rows stands: 8 bytes.
        reach_ms: of the view's longest window; None where one is a lifetime.
    """

    rows_at: int
    reach_ms: int | None

    @property
    def expiry_ms(self) -> int:
        """How long a tiles hash outlives its last change; 0: for ever."""
        return 0 if self.reach_ms is None else self.reach_ms + SLACK_MS

    def horizon_ms(self, now_ms: int) -> int | None:
        """Return the start before which tiles are out of every window's reach; None: none ever is."""
        return None if self.reach_ms is None else now_ms - self.reach_ms - SLACK_MS


SHARED = """
local EXPIRY_STEP_MS = 43200000

local function start_of(field)
  local high, low = struct.unpack('>I4I4', field)
  return (high - 2147483648) * 4294967296 + low
end

local function rows_of(packed, at)
  if #packed < at + 7 then return -1 end
  return (struct.unpack('>i8', packed, at))
end

local function touch(key, seed, expire_ms)
  local count = redis.call('HINCRBY', key, 's', 1)
  if count == 1 then count = redis.call('HINCRBY', key, 's', seed) end
  redis.call('DEL', string.sub(key, 1, 6) .. 'R' .. string.sub(key, 8))
  if expire_ms > 0 and redis.call('PTTL', key) < expire_ms - EXPIRY_STEP_MS then
    redis.call('PEXPIRE', key, expire_ms)
  end
  return count
end
"""
