"""``docs/aggregates.md``, written from the registry: ``python -m millrace.aggregates.page``."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import calcsize

from millrace.aggregates.partials import Encoded
from millrace.aggregates.registry import AGGREGATES, Aggregate, Entry
from millrace.types import (
    DATE,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    DataType,
    decimal,
    vector,
)

_EXAMPLES = (INT64, INT32, decimal(12, 2), FLOAT64, STRING, TIMESTAMP, DATE)
_VECTOR = vector(1)
_SAME = "the input's type"
_TAKES = {len(_EXAMPLES): "anything", len(_EXAMPLES) - 1: "all but float64", 4: "numbers"}
_AGREEMENT = {
    "exact": "equal in every engine",
    "rounded": "to a relative 1e-9",
    "narrow": "to a neighbour among the floats of 32 bits",
}

_MEASURED = Path(__file__).parents[4] / "benchmarks" / "aggregates" / "results" / "cost.json"
"""What ``python -m benchmarks.aggregates.cost`` found."""

_COSTS = {
    "event_us": "an event into a tile, µs",
    "tile_bytes": "a tile of 40 events, bytes",
    "lookup_us": "a lookup of 30 tiles, µs",
    "row_us": "a training row, µs",
}

_ADDING = """
## Add an aggregate

1. Say it: an `Entry` in `sdk/python/millrace/aggregates/registry.py`, with its parameters and their
   bounds, what it takes and gives, and `finalize`, which makes its value of a state. What it keeps of
   a tile is an algebra of `algebras.py`; if none fits, write one, with the kinds of column it needs in
   `partials.py`. What is not a number or a value, a set or counts say, is an `Encoding` (`encodings.py`):
   bytes that are the same of the same events, whatever their order. The store, the writer and uploads then
   carry it as any column, and Spark runs its Python itself; Flink has a class of the job's jar for it, which
   extends `Encoding` there.
2. Give each engine its form. `python -c "import millrace.compile.spark"` and the like name the
   engine and the partial or aggregate that is missing: `compile/spark.py` and `compile/flink_tiles.py` (by
   partial, or once in `compile/tile_forms.py` where the SQL is the same; a function that Flink's SQL
   lacks is a class in the job's jar), `kernel/forms.py` (by aggregate), `compile/lineage.py` (the text of a partial). An `Encoding` needs
   `compile/flink_tiles.py` and `kernel/forms.py` alone. What an engine cannot do goes into its table
   `UNSUPPORTED` with the reason and the way out, and `millrace validate` says it of each view that would need it.
3. Say what it means to the oracle, `tests/reference.py`, once and by brute force.
4. Give authors a builder in `aggregations.py`, add a feature to
   `tests/golden/views/every_aggregate.yaml`, and run `make golden` and this page's module.

The tests take their aggregates from the registry: the kernel, tiles in any order and grouping, coarse
tiles, rows of the store and both engines are then held against the oracle for it, for every type it
takes and every kind of window.
"""


def page() -> str:
    """Return the page; ``tests/unit/language/test_aggregates.py`` holds the file against it."""
    return "".join(_page())


def _page() -> Iterator[str]:
    yield (
        "# Aggregates\n\n"
        "Written from the registry by `python -m millrace.aggregates.page`. What windows hold is the "
        "[window contract](window-contract.md);\nhow tiles and rows are stored, [formats](formats.md).\n\n"
        "| aggregate | value | takes | gives | of no events | engines agree | a tile keeps |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for entry in AGGREGATES.values():
        yield _row(entry)
    yield (
        "\nNulls, NaN and the infinities do not count. Bytes are those of a packed tile; a tile also has "
        "a header of 18 bytes, a bit\nfor each column and 8 bytes for its number of events. Features "
        "that keep the same column of one input share it. A vector takes 4 bytes an element, "
        "a sum of vectors (`sums`) 8.\n"
    )
    if any(entry.parameters for entry in AGGREGATES.values()):
        yield "\n| parameter of | name | | bounds | default |\n|---|---|---|---|---|\n"
        for entry in AGGREGATES.values():
            for one in entry.parameters:
                default = "must be given" if one.default is None else f"{one.default:g}"
                bounds = f"{one.least:g} to {one.most:g}"
                yield f"| `{entry.name}` | `{one.name}` | {one.description} | {bounds} | {default} |\n"
    yield from _costs()
    yield _ADDING


def _costs() -> Iterator[str]:
    """Yield what was measured, aggregate by aggregate."""
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))
    yield (
        f"\nMeasured at {measured['machine']['revision']} in CPU time of one process, of int64 of 10,000 "
        "different values, or vectors ([how](../benchmarks/aggregates/README.md)):\n\n"
        f"| aggregate | {' | '.join(_COSTS.values())} |\n|---|{'---|' * len(_COSTS)}\n"
    )
    for name, costs in measured["costs"].items():
        yield f"| `{name}` | {' | '.join(f'{costs[one]:g}' for one in _COSTS)} |\n"


def _row(entry: Entry) -> str:
    taken = [type_ for type_ in _EXAMPLES if entry.accepts(type_)]
    takes = _TAKES[len(taken)]
    takes = f"{takes}, vectors too" if entry.accepts(_VECTOR) else takes
    takes = takes if entry.needs_input else f"events, or {takes}"
    told = dict(entry.example.parameters)
    bound = [entry.bind(type_, told) for type_ in taken]
    agreement = list(dict.fromkeys(_AGREEMENT[one.agreement] for one in bound))
    gives = _gives(bound)
    if entry.accepts(_VECTOR) and (of_vector := entry.bind(_VECTOR, told)).type == _VECTOR:
        gives = gives if gives == _SAME else f"{gives}, of vectors theirs"
        agreement[-1] += (
            ""
            if of_vector.agreement == "exact"
            else f"; of vectors {_AGREEMENT[of_vector.agreement]}"
        )
    kept = ", ".join(f"`{p.suffix}`" for p in bound[0].partials)
    cells = (
        f"`{entry.name}`",
        entry.summary,
        takes,
        gives,
        "null" if bound[0].empty is None else str(bound[0].empty),
        " or, of doubles, ".join(agreement),
        f"{kept}: {_sizes(bound)}",
    )
    return f"| {' | '.join(cells)} |\n"


def _gives(bound: Sequence[Aggregate]) -> str:
    if len({one.type for one in bound}) > 1 and all(one.type == one.input for one in bound):
        return _SAME
    wider = "decimal(min(38, p+10), s)"
    return ", ".join(
        dict.fromkeys(wider if one.type.kind == "decimal" else str(one.type) for one in bound)
    )


def _sizes(bound: Sequence[Aggregate]) -> str:
    fixed, varies = set(), False
    for one in bound:
        sizes = [_size(p.type) for p in one.partials if not isinstance(p, Encoded)]
        varies = varies or None in sizes
        if None not in sizes:
            fixed.add(sum(size or 0 for size in sizes))
    encoded = [p.size for p in bound[0].partials if isinstance(p, Encoded)]
    if encoded:
        return ", ".join(encoded)
    least, most = min(fixed), max(fixed)
    text = f"{least} bytes" if least == most else f"{least} to {most} bytes"
    text += ", or a length and the value" if varies else ""
    has_place = any(p.holds_edge for p in bound[0].partials)
    return f"{text}; 16 of its place, and the event's id" if has_place else text


def _size(type_: DataType) -> int | None:
    packed = type_.record.packed
    return None if packed is None else calcsize(f">{packed}")


if __name__ == "__main__":
    sys.stdout.write(page())
