"""Tiles of the lake into the store, and the seal before which they are the upload's alone."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources.store.client import pages, store_errors, wait_for_disk
from resources.store.keys import marker_key, marker_keys, sealed_field, version_pattern
from resources.store.online import BatchTiles, RangedTile, Version
from resources.store.tile_rules import SHARED

if TYPE_CHECKING:
    from redis import Redis

_DISK_TIMEOUT_MS = 10_000

UPLOAD = (
    SHARED
    + """
local marks, topic, sealed_before = KEYS[1], ARGV[1], tonumber(ARGV[2])
local seed, expire_ms, rows_at = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local horizon, written, kept = tonumber(ARGV[6]), 0, 0

if sealed_before then
  local name = 'sealed/' .. topic
  local held = tonumber(redis.call('HGET', marks, name) or '')
  if not held or held < sealed_before then redis.call('HSET', marks, name, ARGV[2]) end
end

local at = 7
for k = 2, #KEYS do
  local key, is_changed = KEYS[k], false
  local last = at + 3 * tonumber(ARGV[at])
  local covered, gone = {}, {}
  if sealed_before then
    local ranges, r = {}, 1
    for i = at + 1, last, 3 do
      if ARGV[i + 1] ~= '' then
        ranges[#ranges + 1] = {start_of(ARGV[i]), start_of(ARGV[i + 1]), ARGV[i]}
      end
    end
    local fields = {}
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if #field == 8 and start_of(field) < sealed_before then fields[#fields + 1] = field end
    end
    table.sort(fields, function(a, b) return start_of(a) < start_of(b) end)
    for _, field in ipairs(fields) do
      local start = start_of(field)
      while ranges[r] and ranges[r][2] <= start do r = r + 1 end
      local range = ranges[r]
      if range and range[1] <= start then
        local found = covered[range[3]] or {rows = 0}
        found[#found + 1] = field
        found.rows = found.rows + rows_of(redis.call('HGET', key, field), rows_at)
        covered[range[3]] = found
      elseif horizon and start < horizon then
        gone[#gone + 1] = field
      end
    end
  end
  for i = at + 1, last, 3 do
    local field, packed, found = ARGV[i], ARGV[i + 2], covered[ARGV[i]]
    local rows = rows_of(packed, rows_at)
    local old = redis.call('HGET', key, field)
    if (found and found.rows > rows) or (not found and old and rows_of(old, rows_at) > rows) then
      kept = kept + 1
    else
      for _, name in ipairs(found or {}) do
        if name ~= field then gone[#gone + 1] = name end
      end
      if old ~= packed then
        redis.call('HSET', key, field, packed)
        is_changed = true
      end
      written = written + 1
    end
  end
  for _, field in ipairs(gone) do
    redis.call('HDEL', key, field)
    is_changed = true
  end
  at = last + 1
  if is_changed then touch(key, seed, expire_ms) end
end
return {written, kept}
"""
)
"""Store batch tiles; those before the seal take the place of what lay in their range.

KEYS: the marker hash, then tile hashes. ARGV: topic, seal (empty: none), seed, expiry, place of
``rows``, horizon; then of each tile hash: number of tiles, and of each: field, end of its range as a
field (empty: a tile of one hop, after the seal), packed tile. Ranges ascend. A tile gives way to what
is there already if that holds more rows. Answers with how many were written and how many gave way.
"""

CLEAR = (
    SHARED
    + """
local before, cleared = tonumber(ARGV[1]), 0
for k = 1, #KEYS do
  local gone = 0
  for _, field in ipairs(redis.call('HKEYS', KEYS[k])) do
    if #field == 8 and start_of(field) < before then
      gone = gone + redis.call('HDEL', KEYS[k], field)
    end
  end
  if gone > 0 then touch(KEYS[k], ARGV[2], 0) end
  cleared = cleared + gone
end
return cleared
"""
)
"""Delete tiles that start before an instant. KEYS: tile hashes. ARGV: the instant, seed."""


class ServerUploads:
    """Uploads to a server."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def sealed_before_ms(self, topic: str) -> int | None:
        """See ``Uploads``."""
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for key in marker_keys():
                pipe.hget(key, sealed_field(topic))
            return max((int(text) for text in pipe.execute() if text), default=None)

    def upload(
        self,
        batch: BatchTiles,
        entities: Mapping[int, Sequence[tuple[bytes, Sequence[RangedTile]]]],
    ) -> tuple[int, int]:
        """See ``Uploads``."""
        seed = _seed()
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            script = self._client.script_load(UPLOAD)
            for tag, of_tag in entities.items():
                arguments = _arguments(batch, tag, of_tag, seed)
                pipe.evalsha(script, 1 + len(of_tag), *arguments)
            answers: list[Any] = pipe.execute()
        return sum(written for written, _ in answers), sum(kept for _, kept in answers)

    def clear(self, version: Version, before_ms: int) -> int:
        """See ``Uploads``."""
        cleared = 0
        with store_errors():
            script = self._client.register_script(CLEAR)
            pattern = version_pattern(*version, "tile")
            for keys in pages(self._client, pattern):
                cleared += sum(int(script(keys=[key], args=[before_ms, _seed()])) for key in keys)
        return cleared

    def settle(self) -> None:
        """See ``Uploads``."""
        wait_for_disk(self._client, _DISK_TIMEOUT_MS)


def _arguments(
    batch: BatchTiles,
    tag: int,
    entities: Sequence[tuple[bytes, Sequence[RangedTile]]],
    seed: int,
) -> Iterator[Any]:
    rules, sealed_ms = batch.rules, batch.sealed_before_ms
    horizon = rules.horizon_ms(batch.now_ms)
    yield marker_key(tag)
    yield from (key for key, _ in entities)
    yield batch.topic
    yield "" if sealed_ms is None else sealed_ms
    yield from (seed, rules.expiry_ms, rules.rows_at + 1)
    yield "" if horizon is None else horizon
    for _, tiles in entities:
        yield len(tiles)
        for tile in tiles:
            yield from tile


def _seed() -> int:
    return time.time_ns() // 1_000
