"""Merged rows, kept beside the tiles they were merged from until one of them changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

KEEP = """
if (redis.call('HGET', KEYS[2], 's') or '') ~= ARGV[1] then return 0 end
local left_ms = redis.call('PTTL', KEYS[2])
if left_ms == -2 then return 0 end
if left_ms > 0 then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', left_ms)
else
  redis.call('SET', KEYS[1], ARGV[2])
end
if #ARGV > 2 then
  redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
  redis.call('HINCRBY', KEYS[2], 's', 1)
end
return 1
"""
"""Keep a merged row if no tile changed since it was read, and drop tiles that nobody needs.

KEYS: the row, the hash of its tiles. ARGV: the counter as it was read, the row, fields to drop.

The row lives as long as its tiles: an entity is forgotten as a whole. A dropped tile is out of reach
of every row merged from now on, so the row stays; the counter moves as with every change.
"""

_MOST_DROPPED = 1_000


@dataclass(frozen=True)
class MergedRow:
    """A row to keep.

    Attributes:
        changes: the counter as it was read with the tiles; empty if there was none.
        dropped: fields of tiles out of reach; those beyond a thousand are dropped another time.
    """

    row_key: bytes
    tiles_key: bytes
    changes: bytes
    row: bytes
    dropped: Sequence[bytes]


def keep_arguments(row: MergedRow) -> Iterator[Any]:
    """Yield what ``KEEP`` takes: the number of keys, the keys, the arguments."""
    yield from (2, row.row_key, row.tiles_key, row.changes, row.row)
    yield from row.dropped[:_MOST_DROPPED]
