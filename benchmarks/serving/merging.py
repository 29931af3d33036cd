"""What an answer of merged tiles costs, in process: CPU of one key, and the share of each step.

    python -m benchmarks.serving.merging

Views of the windows 30 d, 24 h and 1 h, and customers of 50 tiles, spread over a month and many of them in
the last day. Steps take turns, so that what else runs meets all of them; a step's figure is the least
of its rounds, its spread their quartiles. Results go to ``results/merging.json``.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.offline.measuring import machine
from millrace.aggregates import Place
from millrace.codec import Packed, tile_field
from millrace.compile.serving import serving_plan
from millrace.durations import DAY_MS, HOUR_MS
from millrace.load.yaml import read_yaml
from millrace.online.view import OnlineView
from millrace.plan import ViewPlan
from millrace.resolve import resolve
from millrace.tiles import TileEvent, build_tile, tile_start_ms

HERE = Path(__file__).resolve().parent
NOW_MS = 1_764_072_345_678
CUSTOMERS = 40
TILES = 50
EVENTS_A_TILE = 3
CHANGES = b"s"
Tiles = Mapping[bytes, bytes]
Step = Callable[[Tiles], object]


def main() -> int:
    """Measure each view and write the figures."""
    parser = argparse.ArgumentParser(description="merging of tiles")
    parser.add_argument("--rounds", type=int, default=25)
    rounds: int = parser.parse_args().rounds
    figures: dict[str, Any] = {"machine": machine(), "tiles": TILES, "rounds": rounds}
    for view in views():
        figures[view.name] = measured(view, rounds)
    text = json.dumps(figures, indent=2) + "\n"
    (HERE / "results" / "merging.json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def views() -> Sequence[ViewPlan]:
    """Return the plans of the benchmark's views."""
    file = HERE / "views" / "merging.yaml"
    specs, faults = read_yaml(file.read_text(encoding="utf-8"), file.name)
    if faults:
        raise SystemExit("\n".join(map(str, faults)))
    return list(resolve(specs).views.values())


def measured(view: ViewPlan, rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds of CPU of each step for one key: least, and quartiles of the rounds."""
    online = OnlineView.from_plan(json.loads(json.dumps(serving_plan(view))))
    chance = random.Random(11)  # noqa: S311 - data of a benchmark
    customers = [tiles_of(view, online, chance) for _ in range(CUSTOMERS)]
    rows = {id(tiles): online.merge(tiles, NOW_MS) for tiles in customers}
    places = tuple(range(len(online.features)))

    def whole(tiles: Tiles) -> object:
        online.newest_ms(tiles)
        row = online.merge(tiles, NOW_MS)
        answers = online.at(NOW_MS, NOW_MS, places).answer(row)
        return answers, online.rows.encode(row), online.out_of_reach(tiles, NOW_MS)

    steps: dict[str, Step] = {
        "whole": whole,
        "newest event": online.newest_ms,
        "decode every tile": lambda tiles: [
            online.tiles.decode(t) for f, t in tiles.items() if f != CHANGES
        ],
        "merge": lambda tiles: online.merge(tiles, NOW_MS),
        "answer": lambda tiles: online.at(NOW_MS, NOW_MS, places).answer(rows[id(tiles)]),
        "encode the row": lambda tiles: online.rows.encode(rows[id(tiles)]),
        "find tiles to drop": lambda tiles: online.out_of_reach(tiles, NOW_MS),
    }
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.process_time()
            for tiles in customers:
                step(tiles)
            found[name].append((time.process_time() - began) / CUSTOMERS * 1e6)
    return {name: spread(taken) for name, taken in found.items()}


def spread(taken: Sequence[float]) -> dict[str, float]:
    """Return the least and the quartiles."""
    low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
    figures = {"least": min(taken), "low": low, "median": middle, "high": high}
    return {name: round(figure, 1) for name, figure in figures.items()}


def tiles_of(view: ViewPlan, online: OnlineView, chance: random.Random) -> dict[bytes, bytes]:
    """Return tiles of one customer as stored, with the counter of changes beside them."""
    starts: set[int] = set()
    while len(starts) < TILES:
        reach_ms = chance.choice([HOUR_MS, DAY_MS, 30 * DAY_MS])
        starts.add(tile_start_ms(NOW_MS - chance.randrange(1, reach_ms), view.tile_hop_ms))
    tiles = {CHANGES: b"7"}
    for start_ms in starts:
        events = [event(view, start_ms, chance) for _ in range(EVENTS_A_TILE)]
        tile = build_tile(view, events)
        values = tuple(tile[slot.name] for slot in online.tiles.slots)
        tiles[tile_field(start_ms)] = online.tiles.encode(Packed(values, tile["last_event_ms"]))
    return tiles


def event(view: ViewPlan, start_ms: int, chance: random.Random) -> TileEvent:
    """Return an event of a tile."""
    at = min(start_ms + chance.randrange(view.tile_hop_ms), NOW_MS - 1)
    values = {
        "amount": round(chance.uniform(1, 500), 2),
        "price": Decimal(chance.randrange(1, 50_000)).scaleb(-2),
        "items": chance.randrange(1, 20),
        "is_online": chance.random() < 0.5,  # noqa: PLR2004 - as often as not
        "channel": chance.choice(["web", "shop", "app"]),
    }
    measures = {m.name: values[m.expression.text] for m in view.measures}
    return TileEvent(Place(at, at, chance.randrange(10**6)), measures)


if __name__ == "__main__":
    sys.exit(main())
