"""Events for the streaming benchmarks, and the process that sends them at a steady rate.

    python -m benchmarks.streaming.load --bootstrap HOST:PORT --rate 2000 --seconds 30

Every ``PROBE_EVERY``-th event belongs to one of ``PROBES`` entities that are watched; its ``n``
counts that entity's events, so that an answer tells which of them it contains. Event i is due
``i / rate`` seconds after the start, whatever became of those before it (open loop). The first line
of stdout is the start by the monotonic clock, which all processes of a machine share.
"""

import argparse
import random
import sys
import time

from confluent_kafka import Producer

TOPIC = "bench_events"
PARTITIONS = 4
USERS = 100_000
PROBES = 20
PROBE_EVERY = 20
FIRST_PROBE = 10_000_000
SENTINEL = 20_000_000
HALFWAY = 30_000_000
STEP_S = 0.002
_SKEW = 1.1


class Events:
    """Draws events; users by a Zipf law, so that some are busy."""

    def __init__(self, seed: int, run: str) -> None:
        self._draw, self._run = random.Random(seed), run  # noqa: S311

    def user(self) -> int:
        """Draw a user by inverting the law's integral."""
        exponent = 1 - _SKEW
        return int(((USERS**exponent - 1) * self._draw.random() + 1) ** (1 / exponent))

    def encoded(self, number: int, user: int, at_ms: int, n: int) -> bytes:
        """Return one event of about 130 bytes."""
        cents = self._draw.randrange(1, 1_000_000)
        return b'{"id":"%s-%d","at":%d,"user_id":%d,"amount":%d.%02d,"place":"place-%d","n":%d}' % (
            *(self._run.encode(), number, at_ms, user, cents // 100, cents % 100),
            *(number % 500, n),
        )


def probed(number: int) -> tuple[int, int] | None:
    """Return the watched entity of event ``number`` and its count so far; None if not watched."""
    if number % PROBE_EVERY:
        return None
    turn = number // PROBE_EVERY
    return FIRST_PROBE + turn % PROBES, turn // PROBES + 1


def producer(bootstrap: str) -> Producer:
    """Return a producer as an application would have it: idempotent, 5 ms of linger."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "batch.size": 131_072,
            "queue.buffering.max.messages": 2_000_000,
        }
    )


def main() -> int:
    """Send at the rate until the time is over."""
    parser = argparse.ArgumentParser(description="send events at a steady rate")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--run", required=True, help="prefix of the event ids")
    args = parser.parse_args()
    sender, events = producer(args.bootstrap), Events(1, args.run)
    sender.list_topics(TOPIC, timeout=10)
    began = time.monotonic() + 0.2
    sys.stdout.write(f"{began!r}\n")
    sys.stdout.flush()
    sent, total = 0, int(args.rate * args.seconds)
    while sent < total:
        due = min(total, int((time.monotonic() - began) * args.rate) + 1)
        while sent < due:
            watched = probed(sent)
            user, n = watched or (events.user(), 0)
            at_ms = time.time_ns() // 1_000_000
            value = events.encoded(sent, user, at_ms, n)
            sender.produce(TOPIC, key=b"%d" % user, value=value)
            sent += 1
        sender.poll(0)
        time.sleep(STEP_S)
    return 1 if sender.flush(60) else 0


if __name__ == "__main__":
    sys.exit(main())
