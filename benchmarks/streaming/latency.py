"""Event to answer: from a producer's send to the first HTTP answer that contains the event.

    MILLRACE_VIEWS=benchmarks/streaming/views millrace up kafka flink store writer archive server
    MILLRACE_VIEWS=benchmarks/streaming/views millrace stream deploy bench_activity
    MILLRACE_VIEWS=benchmarks/streaming/views python -m benchmarks.streaming.latency

An open-loop producer sends at the rate; five events in a hundred belong to twenty watched entities.
These are looked up in one request every ``--poll-ms``, begun by schedule. The latency of an event is
counted from when it was due to be sent, to when the body of the first answer that holds it was
read; it so contains the wait for the next poll. Results: ``results/latency.json`` and ``.md``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from benchmarks.streaming.load import FIRST_PROBE, PROBE_EVERY, PROBES
from benchmarks.streaming.parts import cpu_seconds, host, place, programs, spent, url, write

DRAIN_S = 15.0
SLICE_S = 10
_BODY = json.dumps(
    {
        "entity_name": "bench_user",
        "keys": [FIRST_PROBE + i for i in range(PROBES)],
        "features": [{"name": "newest_n_1h"}, {"name": "events_1h"}],
    }
)


def main() -> int:
    """Run once and write the figures."""
    parser = argparse.ArgumentParser(description="event to answer, open loop")
    parser.add_argument("--rate", type=float, default=2_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=20, help="seconds before, left out")
    parser.add_argument("--poll-ms", type=float, default=10)
    args = parser.parse_args()
    pids, load = programs(), os.getloadavg()[0]
    before = cpu_seconds(pids)
    answered, sent, polls = _run(args.rate, args.warm_up, args.seconds, args.poll_ms / 1000)
    used = spent(before, cpu_seconds(pids))
    latencies = [latency for _, latency in answered]
    report = {
        "scenario": "latency",
        "rate": args.rate,
        "seconds": args.seconds,
        "watched_events": sent,
        "unanswered": sent - len(latencies),
        "polls": polls,
        "latency_ms": _percentiles(latencies),
        "latency_ms_by_slice": _by_slice(answered),
        "cpu_s": used,
        "load_before": load,
        "machine": host(),
    }
    table = _table(report)
    write("latency", report, table)
    print(table)
    return 1 if report["unanswered"] else 0


def _run(
    rate: float, warm_up_s: float, seconds: float, poll_s: float
) -> tuple[list[tuple[float, float]], int, int]:
    """Send and poll.

    Returns:
        For each watched event that was answered, when it was sent after the warm-up and its
        latency, in seconds; how many there should be; and the number of polls.
    """
    run, whole_s = f"r{time.time_ns()}", warm_up_s + seconds
    arguments = [f"--rate={rate}", f"--seconds={whole_s}", f"--run={run}"]
    connection = _connected()
    already = _newest(connection)
    # Each run counts from one again: only the watched entities' growth tells of this run.
    if any(already.values()):
        raise RuntimeError(
            "watched entities have events of the last hour; use a fresh MILLRACE_HOME"
        )
    sender = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.streaming.load",
            f"--bootstrap={url('kafka')}",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    began = float(sender.stdout.readline() if sender.stdout else "nan")
    total = int(rate * whole_s)
    count = dict.fromkeys(already, 0)
    answered: list[tuple[float, float]] = []
    polls, end = 0, began + whole_s + DRAIN_S
    due = {
        (FIRST_PROBE + turn % PROBES, turn // PROBES + 1): began + turn * PROBE_EVERY / rate
        for turn in range((total + PROBE_EVERY - 1) // PROBE_EVERY)
    }
    while due and time.monotonic() < end:
        time.sleep(max(0.0, began + polls * poll_s - time.monotonic()))
        polls = max(polls + 1, int((time.monotonic() - began) / poll_s))
        newest = _newest(connection)
        now = time.monotonic()
        for user, n in newest.items():
            for one in range(count[user] + 1, n + 1):
                sent_at = due.pop((user, one))
                if sent_at - began >= warm_up_s:
                    answered.append((sent_at - began - warm_up_s, now - sent_at))
            count[user] = max(count[user], n)
    if sender.wait(60):
        raise RuntimeError("the producer did not deliver all")
    missing = sum(at - began >= warm_up_s for at in due.values())
    return answered, len(answered) + missing, polls


def _connected() -> HTTPConnection:
    parts = urlsplit(url("server"))
    return HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=10)


def _newest(connection: HTTPConnection) -> dict[int, int]:
    """Ask once; returns the newest event of each watched entity, 0 for none."""
    connection.request(
        "POST", "/v1/features:batchLookup", _BODY, {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    answer: Any = json.loads(response.read())
    if response.status != 200:  # noqa: PLR2004
        raise RuntimeError(f"the server answered {response.status}: {answer}")
    return {
        int(one["key"]): int(one["features"]["newest_n_1h"]["value"] or 0)
        for one in answer["results"]
    }


def _by_slice(answered: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """Return the percentiles of every ten seconds, in order: a stall shows where it was."""
    slices: dict[int, list[float]] = {}
    for sent_s, latency in answered:
        slices.setdefault(int(sent_s // SLICE_S), []).append(latency)
    return [_percentiles(slices[number]) for number in sorted(slices)]


def _percentiles(latencies: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    if not ordered:
        return {}

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "p99.9": at(0.999),
        "max": round(1000 * ordered[-1], 1),
    }


def _table(report: Mapping[str, Any]) -> str:
    found = report["latency_ms"]
    cpu = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["cpu_s"].items())
    watched = (
        f"{report['watched_events']:,} watched events, {report['unanswered']} never answered, "
        f"{report['polls']:,} polls. CPU seconds: {cpu}."
    )
    lines = [
        "| event to answer | p50 | p95 | p99 | p99.9 | max |",
        "|---|---|---|---|---|---|",
        f"| {report['rate']:,.0f} events/s for {report['seconds']:.0f} s, ms | "
        + " | ".join(f"{value:,.0f}" for value in found.values())
        + " |",
        "",
        watched,
        "",
        place(report),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
