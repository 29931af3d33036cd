"""Tiles of streams into the store, each batch with the markers that say it is there.

Source: the marker beside the data follows Kafka's advice to keep offsets with the output.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resources.store.client import store_errors
from resources.store.errors import StoreMoved, Superseded
from resources.store.keys import marker_key
from resources.store.online import NO_MARKER, TileWrite
from resources.store.tile_rules import SHARED

if TYPE_CHECKING:
    from redis import Redis

OK, BEHIND, SUPERSEDED = 0, 1, 2
"""Answers of ``APPLY``: done; the store does not stand where the caller thinks; a newer writer."""

APPLY = (
    SHARED
    + """
local PRUNE_EVERY = 64

local marks, topic, epoch = KEYS[1], ARGV[1], ARGV[2]
local seed, expire_ms, rows_at = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local horizon, partitions = tonumber(ARGV[6]), tonumber(ARGV[7])

local asked = {'sealed/' .. topic}
for i = 1, partitions do
  local name = topic .. '/' .. ARGV[5 + 3 * i]
  asked[2 * i], asked[2 * i + 1] = name, 'epoch/' .. name
end
local held = redis.call('HMGET', marks, unpack(asked))
for i = 1, partitions do
  local theirs = held[2 * i + 1]
  if theirs ~= epoch then
    if theirs and tonumber(theirs) > tonumber(epoch) then return 2 end
    return 1
  end
  if (held[2 * i] or '') ~= ARGV[6 + 3 * i] then return 1 end
end

local sealed, at = tonumber(held[1] or ''), 8 + 3 * partitions
for k = 2, #KEYS do
  local key, is_changed = KEYS[k], false
  local last = at + 2 * tonumber(ARGV[at])
  for i = at + 1, last, 2 do
    local field, packed = ARGV[i], ARGV[i + 1]
    if not sealed or start_of(field) >= sealed then
      local old = redis.call('HGET', key, field)
      if not old or (old ~= packed and rows_of(old, rows_at) <= rows_of(packed, rows_at)) then
        redis.call('HSET', key, field, packed)
        is_changed = true
      end
    end
  end
  at = last + 1
  if is_changed then
    local count = touch(key, seed, expire_ms)
    if horizon and count % PRUNE_EVERY == 0 then
      for _, field in ipairs(redis.call('HKEYS', key)) do
        if #field == 8 and start_of(field) < horizon then redis.call('HDEL', key, field) end
      end
    end
  end
end

for i = 1, partitions do
  if ARGV[7 + 3 * i] ~= ARGV[6 + 3 * i] then
    redis.call('HSET', marks, topic .. '/' .. ARGV[5 + 3 * i], ARGV[7 + 3 * i])
  end
end
return 0
"""
)
"""Store tiles and move the markers that cover them, or nothing at all.

KEYS: the marker hash, then tile hashes. ARGV: topic, epoch, seed of new counters, expiry in ms (0:
none), 1-based place of ``rows`` in a packed tile, horizon before which tiles are out of reach (empty:
none), number of partitions, and of each: number, marker as the caller knows it (empty: none), new
marker. Then of each tile hash: number of tiles, and of each: field, packed tile.
"""


class ServerTiles:
    """The sink of a server: one connection, on which a batch is one write and one read."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._script: Any = None
        self._line: Any = None
        self._awaited: list[str] = []

    def send(self, writes: Sequence[TileWrite]) -> None:
        """See ``TileSink``."""
        self._awaited = [write.topic for write in writes]
        if not writes:
            return
        seed = time.time_ns() // 1_000
        with store_errors():
            if self._line is None:
                # A server that was started anew has forgotten the script.
                self._script = self._client.script_load(APPLY)
                self._line = self._client.connection_pool.get_connection()
            commands = [("EVALSHA", self._script, *_arguments(write, seed)) for write in writes]
            self._line.send_packed_command(self._line.pack_commands(commands))

    def receive(self) -> None:
        """See ``TileSink``."""
        from redis.exceptions import ResponseError

        failures: list[ResponseError] = []
        awaited, self._awaited = self._awaited, []
        with store_errors():
            for topic in awaited:
                try:
                    answer = self._line.read_response()
                except ResponseError as error:
                    failures.append(error)
                    continue
                refuse(answer, topic)
            if failures:
                raise failures[0]

    def hang_up(self) -> None:
        """See ``TileSink``."""
        self._awaited = []
        if self._line is not None:
            self._line.disconnect()
            self._client.connection_pool.release(self._line)
            self._line = None


def refuse(answer: int, topic: str) -> None:
    """Raise what an answer of ``APPLY`` means; nothing if the tiles are stored.

    Raises:
        Superseded: a newer writer has the partitions.
        StoreMoved: the markers are others.
    """
    if answer == SUPERSEDED:
        raise Superseded.on(topic)
    if answer != OK:
        raise StoreMoved("the store was rolled back, flushed or replaced", where=topic)


def _arguments(write: TileWrite, seed: int) -> list[Any]:
    rules, horizon = write.rules, write.rules.horizon_ms(write.now_ms)
    parts: list[Any] = [1 + len(write.tiles), marker_key(write.tag), *write.tiles]
    parts += (write.topic, write.epoch, seed, rules.expiry_ms, rules.rows_at + 1)
    parts += ("" if horizon is None else horizon, len(write.markers))
    for partition, (known, end) in write.markers.items():
        parts += (partition, "" if known == NO_MARKER else known, end)
    for tiles in write.tiles.values():
        parts.append(len(tiles) // 2)
        parts += tiles
    return parts
