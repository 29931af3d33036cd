"""Sustained throughput from Kafka to the store: how fast a backlog becomes servable tiles.

    MILLRACE_VIEWS=benchmarks/streaming/views millrace up kafka flink store writer server
    MILLRACE_VIEWS=benchmarks/streaming/views python -m benchmarks.streaming.throughput

The backlog is written first, stamped as if it had come in at ``--pace`` events a second: what a
pipeline must take that keeps up with such traffic. Then the stream is deployed. The clock runs from the submission of
the job, and again from when all its tasks run, until the last event of every partition is in an
answer and the writer has nothing left; and, for the rate that is sustained, from when its first
half was served: before that, the JVMs compile what they run. Then every user is looked up, and the
counts must add up to the backlog, or the run fails. Results: ``results/throughput.json`` and ``.md``.
"""

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.request import Request, urlopen

from benchmarks.streaming.load import (
    HALFWAY,
    PARTITIONS,
    SENTINEL,
    TOPIC,
    USERS,
    Events,
    producer,
)
from benchmarks.streaming.parts import (
    cpu_seconds,
    host,
    millrace,
    place,
    programs,
    spent,
    url,
    write,
)

VIEW = "bench_activity"
DEADLINE_S = 300.0
_KEYS_AT_ONCE = 5_000
_POLL_S = 0.1
_CLOCKS = (
    ("sustained: the second half", "second_half_s", "events_per_s_sustained"),
    ("from all tasks running", "from_running_s", "events_per_s_running"),
    ("from submission of the job", "from_submission_s", "events_per_s"),
)


def main() -> int:
    """Run once and write the figures."""
    parser = argparse.ArgumentParser(description="a backlog from Kafka to the store")
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--pace", type=float, default=40_000, help="events a second of event time")
    args = parser.parse_args()
    events: int = args.events
    _make_topic()
    write_s = _write_backlog(events, args.pace)
    pids, load = programs(), os.getloadavg()[0]
    before, submitted = cpu_seconds(pids), time.monotonic()
    millrace("stream", "deploy", VIEW)
    running = time.monotonic()
    _wait_until_served(HALFWAY)
    half = time.monotonic()
    _wait_until_served(SENTINEL)
    done = time.monotonic()
    used = spent(before, cpu_seconds(pids))
    counted = _counted()
    report = {
        "scenario": "throughput",
        "events": events,
        "pace": args.pace,
        "counted": counted,
        "from_submission_s": round(done - submitted, 2),
        "from_running_s": round(done - running, 2),
        "events_per_s": round(events / (done - submitted)),
        "events_per_s_running": round(events / (done - running)),
        "second_half_s": round(done - half, 2),
        "events_per_s_sustained": round(events / 2 / (done - half)),
        "backlog_written_s": round(write_s, 2),
        "cpu_s": used,
        "load_before": load,
        "machine": host(),
    }
    table = _table(report)
    write("throughput", report, table)
    print(table)
    return 0 if counted == events else 1


def _make_topic() -> None:
    from resources.kafka.client import Topic, ensure_topics

    ensure_topics(url("kafka"), [Topic(TOPIC, PARTITIONS)])


def _write_backlog(total: int, pace: float) -> float:
    """Write the events, the middle and last of each partition a sentinel's; returns seconds."""
    sender, events = producer(url("kafka")), Events(2, f"b{time.time_ns()}")
    began, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    regular, span_ms = total - 2 * PARTITIONS, total / pace * 1000

    def mark(sentinel: int, number: int, at_ms: int) -> None:
        for partition in range(PARTITIONS):
            value = events.encoded(number + partition, sentinel + partition, at_ms, 1)
            sender.produce(TOPIC, key=b"end", value=value, partition=partition)

    for number in range(regular):
        user = events.user()
        at_ms = now_ms - int((regular - number) / regular * span_ms)
        key = b"%d" % user
        value = events.encoded(number, user, at_ms, 0)
        sender.produce(TOPIC, key=key, value=value, partition=zlib.crc32(key) % PARTITIONS)
        if number == regular // 2:
            mark(HALFWAY, regular, at_ms)
        if not number % 1_000:
            sender.poll(0)
    mark(SENTINEL, regular + PARTITIONS, now_ms)
    if sender.flush(120):
        raise RuntimeError("the backlog was not delivered")
    return time.monotonic() - began


def _wait_until_served(sentinel: int) -> None:
    keys = [sentinel + partition for partition in range(PARTITIONS)]
    is_end = sentinel == SENTINEL
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if all(_counts(keys)) and (not is_end or _tile_lag() == 0):
            return
        time.sleep(_POLL_S)
    raise TimeoutError(f"the backlog was not served within {DEADLINE_S:.0f} s")


def _tile_lag() -> int | None:
    from millrace.published import PROGRESS_KEY
    from resources.store.client import open_store

    with open_store(url("store")) as client:
        told: Mapping[bytes, bytes] = client.hgetall(PROGRESS_KEY)
    lags = [json.loads(v)["tile_lag"] for k, v in told.items() if k.startswith(f"{VIEW}/".encode())]
    return lags[0] if lags else None


def _counts(keys: list[int]) -> list[int]:
    body = {"entity_name": "bench_user", "keys": keys, "features": [{"name": "events_1d"}]}
    request = Request(  # noqa: S310 - our own server
        f"{url_of_server()}/v1/features:batchLookup",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=30) as response:  # noqa: S310
        answer: Any = json.loads(response.read())
    return [int(one["features"]["events_1d"]["value"]) for one in answer["results"]]


_server: list[str] = []


def url_of_server() -> str:
    """Return the server's address, asked for once."""
    if not _server:
        _server.append(url("server"))
    return _server[0]


def _counted() -> int:
    return sum(sum(_counts(keys)) for keys in _all_keys())


def _all_keys() -> Iterator[list[int]]:
    marks = [first + p for first in (HALFWAY, SENTINEL) for p in range(PARTITIONS)]
    users = [*range(USERS + 1), *marks]
    for start in range(0, len(users), _KEYS_AT_ONCE):
        yield users[start : start + _KEYS_AT_ONCE]


def _table(report: Mapping[str, Any]) -> str:
    lines = [
        f"| {report['events']:,} events, Kafka to store | s | events/s |",
        "|---|---|---|",
        *(f"| {what} | {report[seconds]} | {report[rate]:,} |" for what, seconds, rate in _CLOCKS),
        "",
        "| CPU seconds | |",
        "|---|---|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in report["cpu_s"].items()),
        "",
        f"counted afterwards, over all users: {report['counted']:,}.",
        "",
        place(report),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
