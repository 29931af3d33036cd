"""Claims of partitions: of several writers the newest stores tiles, and the others hear of it."""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from resources.store.apply import SUPERSEDED
from resources.store.client import store_errors
from resources.store.errors import Superseded
from resources.store.keys import epoch_field, marker_field, marker_keys
from resources.store.online import NO_MARKER, Claim

if TYPE_CHECKING:
    from redis import Redis

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


class ServerClaims:
    """Claims on a server."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def claim(self, topic: str, partitions: Sequence[int], epoch: int = 0) -> Claim:
        """See ``Claims``."""
        epoch = epoch or self._next_epoch(topic, partitions)
        words = [word for p in partitions for word in (marker_field(topic, p), epoch)]
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            script = self._client.script_load(CLAIM)
            for key in marker_keys():
                pipe.evalsha(script, 1, key, *words)
            answers = pipe.execute()
        if any(answer[0] == SUPERSEDED for answer in answers):
            raise Superseded.on(topic)
        return Claim(epoch, [[read_marker(text) for text in held] for _, held in answers])

    def forget(self, topic: str, partition: int) -> None:
        """See ``Claims``."""
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for key in marker_keys():
                pipe.hdel(key, marker_field(topic, partition))
            pipe.execute()

    def _next_epoch(self, topic: str, partitions: Sequence[int]) -> int:
        names = [epoch_field(topic, p) for p in partitions]
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for key in marker_keys():
                pipe.hmget(key, names)
            return next_epoch(text for held in pipe.execute() for text in held if text)


def next_epoch(known: Iterable[bytes]) -> int:
    """Return an epoch above those that are known, and above all that a clock gave before."""
    return max([time.time_ns() // 1_000_000, *(int(epoch) + 1 for epoch in known)])


def read_marker(text: bytes | None) -> int:
    """Return the marker that a field holds; none or an empty text: that there is none."""
    return int(text) if text else NO_MARKER
