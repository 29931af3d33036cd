"""What each aggregate costs: in CPU time per event, per tile and per lookup, and in bytes a tile.

Run: ``python -m benchmarks.aggregates.cost``. It prints the table of README.md. One process, no engine.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pyarrow as pa

from millrace.aggregates import AGGREGATES, Aggregate, Encoding, Place
from millrace.codec import Codec, Packed
from millrace.durations import DAY_MS
from millrace.kernel.arrow import KernelFeature, KernelView, join_features
from millrace.layouts import Slot
from millrace.tiles import TileColumn
from millrace.types import INT64
from millrace.windows import Sliding

EVENTS, KEYS, QUERIES = 400_000, 2_000, 100_000
TILES, EVENTS_A_TILE = 30, 40
REPEATS = 5
DIFFERENT = 10_000
SPAN_MS = 100 * DAY_MS


def cpu_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median CPU seconds of some runs."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return median(taken)


def tables() -> tuple[pa.Table, pa.Table]:
    """Return events of some keys over 100 days, and queries at the times of some of them."""
    chance = np.random.default_rng(1)
    at = chance.integers(0, SPAN_MS, EVENTS)
    keys, values = chance.integers(0, KEYS, EVENTS), chance.integers(0, DIFFERENT, EVENTS)
    asked = chance.integers(0, EVENTS, QUERIES)
    events = pa.table({"k": keys, "_event_ms": at, "_ingest_ms": at, "m0": values})
    return events, pa.table({"k": keys[asked], "_query_ms": at[asked] + 1})


def kernel_us(aggregate: Aggregate, events: pa.Table, spine: pa.Table) -> float:
    """Return the microseconds a training row takes, over 30 days by a day."""
    feature = KernelFeature("f", aggregate, "m0", Sliding(30 * DAY_MS, DAY_MS))
    view = KernelView(("k",), (("m0", INT64),), has_event_id=False, features=(feature,))
    return cpu_s(lambda: join_features(view, events, spine), 3) / QUERIES * 1e6


def tile_costs(aggregate: Aggregate) -> tuple[float, float, float]:
    """Return (microseconds per event of a tile, per lookup of many tiles, bytes of a tile)."""
    chance, algebra = np.random.default_rng(1), aggregate.algebra
    values = [
        [
            (int(n), Place(i, i, i))
            for i, n in enumerate(chance.integers(0, DIFFERENT, EVENTS_A_TILE))
        ]
        for _ in range(TILES)
    ]

    def build() -> list[tuple[object, ...]]:
        packed = []
        for tile in values:
            state = algebra.init()
            for value, place in tile:
                state = algebra.update(state, value, place)
            packed.append(algebra.pack(state))
        return packed

    packed = build()

    def look_up() -> object:
        if isinstance(algebra, Encoding):
            held = map(algebra.unpack, packed)
            return aggregate.finalize(algebra.merge_all([algebra.init(), *held]))
        state = algebra.init()
        for kept in packed:
            state = algebra.merge(state, algebra.unpack(kept))
        return aggregate.finalize(state)

    sizes = [_size(aggregate, kept) for kept in packed]
    per_event = cpu_s(build) / (TILES * EVENTS_A_TILE) * 1e6
    return per_event, cpu_s(lambda: [look_up() for _ in range(10)]) / 10 * 1e6, median(sizes)


def _size(aggregate: Aggregate, kept: tuple[object, ...]) -> int:
    slots = [
        Slot(TileColumn(None, p).name, p.type, p.holds_edge, INT64 if p.holds_edge else None)
        for p in aggregate.partials
    ]
    codec, empty = Codec("tile", "0" * 16, slots), tuple(None for _ in slots)
    return len(codec.encode(Packed(kept, 0))) - len(codec.encode(Packed(empty, 0)))


def main() -> None:
    events, spine = tables()
    sys.stdout.write(
        "| aggregate | bytes a tile | an event into a tile, µs | a lookup of 30 tiles, µs "
        "| a training row, µs |\n|---|---|---|---|---|\n"
    )
    for entry in AGGREGATES.values():
        aggregate = entry.example
        per_event, lookup, size = tile_costs(aggregate)
        row = kernel_us(aggregate, events, spine)
        sys.stdout.write(
            f"| `{aggregate}` | {size:.0f} | {per_event:.1f} | {lookup:.0f} | {row:.1f} |\n"
        )


if __name__ == "__main__":
    main()
