"""What each aggregate costs: in CPU time per event, per tile and per lookup, and in bytes a tile.

Run: ``python -m benchmarks.aggregates.cost``, then ``python -m millrace.aggregates.page``, whose page
has what is in ``results/cost.json``. One process, no engine.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from benchmarks.offline.measuring import machine
from millrace.aggregates import AGGREGATES, Aggregate, Encoding, Place
from millrace.codec import Codec, Packed
from millrace.durations import DAY_MS
from millrace.kernel.arrow import KernelFeature, KernelView, join_features
from millrace.layouts import Slot
from millrace.tiles import TileColumn
from millrace.types import INT64, DataType, vector
from millrace.values.arrow import vector_array
from millrace.windows import Sliding

RESULTS = Path(__file__).resolve().parent / "results" / "cost.json"
EVENTS, KEYS, QUERIES = 400_000, 2_000, 100_000
TILES, EVENTS_A_TILE = 30, 40
REPEATS = 5
DIFFERENT = 10_000
SPAN_MS = 100 * DAY_MS
VECTOR = vector(64)


def cpu_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median CPU seconds of some runs."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return median(taken)


def values_of(type_: DataType, count: int, chance: np.random.Generator) -> pa.Array:
    """Return int64 of some different values, or vectors of any."""
    if type_.kind != "vector":
        return pa.array(chance.integers(0, DIFFERENT, count))
    vectors = chance.normal(size=(count, type_.length)).astype(np.float32)
    return vector_array(vectors, np.ones(count, np.bool_))


def tables(type_: DataType) -> tuple[pa.Table, pa.Table]:
    """Return events of some keys over 100 days, and queries at the times of some of them."""
    chance = np.random.default_rng(1)
    at = chance.integers(0, SPAN_MS, EVENTS)
    keys, values = chance.integers(0, KEYS, EVENTS), values_of(type_, EVENTS, chance)
    asked = chance.integers(0, EVENTS, QUERIES)
    events = pa.table({"k": keys, "_event_ms": at, "_ingest_ms": at, "m0": values})
    return events, pa.table({"k": keys[asked], "_query_ms": at[asked] + 1})


def kernel_us(aggregate: Aggregate, events: pa.Table, spine: pa.Table) -> float:
    """Return the microseconds a training row takes, over 30 days by a day."""
    feature = KernelFeature("f", aggregate, "m0", Sliding(30 * DAY_MS, DAY_MS))
    measure = ("m0", aggregate.input or INT64)
    view = KernelView(("k",), (measure,), has_event_id=False, features=(feature,))
    return cpu_s(lambda: join_features(view, events, spine), 3) / QUERIES * 1e6


def tile_costs(aggregate: Aggregate) -> tuple[float, float, float]:
    """Return (microseconds per event of a tile, per lookup of many tiles, bytes of a tile)."""
    chance, algebra = np.random.default_rng(1), aggregate.algebra
    type_ = aggregate.input or INT64
    values = [
        [
            (value, Place(i, i, i))
            for i, value in enumerate(values_of(type_, EVENTS_A_TILE, chance).to_pylist())
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
    found = {}
    aggregates = {INT64: [(str(entry.example), entry.example) for entry in AGGREGATES.values()]}
    aggregates[VECTOR] = [
        (f"{entry.name} of a {VECTOR}", entry.bind(VECTOR))
        for entry in AGGREGATES.values()
        if entry.accepts(VECTOR)
    ]
    for type_, bound in aggregates.items():
        for name, costs in measured(type_, bound):
            found[name] = costs
            sys.stdout.write(f"{name}: {costs}\n")
    RESULTS.parent.mkdir(exist_ok=True)
    report = {"machine": machine(), "costs": found}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measured(
    type_: DataType, aggregates: Sequence[tuple[str, Aggregate]]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each aggregate of inputs of one type with what it costs."""
    events, spine = tables(type_)
    for name, aggregate in aggregates:
        per_event, lookup, size = tile_costs(aggregate)
        yield (
            name,
            {
                "event_us": round(per_event, 1),
                "tile_bytes": round(size),
                "lookup_us": round(lookup),
                "row_us": round(kernel_us(aggregate, events, spine), 1),
            },
        )


if __name__ == "__main__":
    main()
