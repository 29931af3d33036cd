"""What the store does with tiles by itself, in one step each: the scripts of writer and upload.

A script touches one hash tag: the tiles and rows of the tag's entities, and the tag's marker hash
``m1{tt}M``. In that hash, of each tile topic:

- ``<topic>/<partition>``: the marker. All records before this offset whose entity has this tag are
  in the store; set in the same step that stores them.
- ``epoch/<topic>/<partition>``: the newest writer's epoch. An older writer is refused.
- ``sealed/<topic>``: tiles that start before it are the upload's alone.

Three rules hold for every change of a tiles hash, whoever makes it: a tile gives way only to one of
at least as many rows (within one version tiles only grow, and a restarted Flink steps back before
it converges); the counter ``s`` moves, and the entity's cached row goes, so that no row merged from
earlier tiles survives; the key's expiry is kept ahead of the longest window.

Source: the marker beside the data follows Kafka's advice to keep offsets with the output.
"""

from millrace.durations import DAY_MS

OK, BEHIND, SUPERSEDED = 0, 1, 2
"""Answers of ``APPLY``: done; the store does not stand where the caller thinks; a newer writer."""

SLACK_MS = 2 * DAY_MS
"""Tiles and keys outlive their reach by this much, as clocks may be wrong."""

_SHARED = """
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

APPLY = (
    _SHARED
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

CLAIM = """
local marks, claimed = KEYS[1], {}
for i = 1, #ARGV, 2 do
  local name, epoch = 'epoch/' .. ARGV[i], ARGV[i + 1]
  local theirs = redis.call('HGET', marks, name)
  if theirs and tonumber(theirs) > tonumber(epoch) then return {2} end
  if theirs ~= epoch then redis.call('HSET', marks, name, epoch) end
  claimed[#claimed + 1] = redis.call('HGET', marks, ARGV[i]) or ''
end
return {0, claimed}
"""
"""Become the writer of partitions, or learn of a newer one.

KEYS: the marker hash. ARGV: of each partition ``<topic>/<partition>`` and the epoch. Answers with
the markers, empty where there is none.
"""

UPLOAD = (
    _SHARED
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
    _SHARED
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


def expiry_ms(reach_ms: int | None) -> int:
    """Return how long a tiles hash outlives its last change; 0: for ever.

    Args:
        reach_ms: of the view's longest window; None where one is a lifetime.
    """
    return 0 if reach_ms is None else reach_ms + SLACK_MS


def horizon_ms(reach_ms: int | None, now_ms: int) -> int | None:
    """Return the start before which tiles are out of every window's reach; None: none ever is."""
    return None if reach_ms is None else now_ms - reach_ms - SLACK_MS
