"""A lake with the tiles of a view in it, written without Spark."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from millrace.aggregates import Place
from millrace.durations import DAY_MS, HOUR_MS
from millrace.kernel.arrow import arrow_type
from millrace.names import events_table, tiles_table
from millrace.plan import Plan, ViewPlan
from millrace.tiles import (
    TILE_START,
    Tile,
    TileColumn,
    TileEvent,
    build_tile,
    tile_columns,
    tile_start_ms,
)
from millrace.types import DataType
from offline.tables.partition_log import append_partition_log
from resources.declarations import load_valid_plan
from resources.lake.delta import rs_path
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.settings import Settings

START = date(2024, 1, 1)
START_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)

DECLARATIONS = """
version: millrace/v1
sources:
  - name: uploads
    columns:
      id: int64
      at: timestamp
      shopper: string
      amount: decimal(12,2)
      weight: float64
      seen: timestamp
    event_time: at
    event_id: id
    allowed_lateness: 1h
    stream: {topic: uploads, format: json}
entities:
  - {name: shopper, join_key: shopper, type: string}
feature_views:
  - name: upload_windows
    entity: shopper
    source: uploads
    start: 2024-01-01
    features:
      - {name: count_1h, aggregate: count, window: 1h}
      - {name: amount_sum_7d, aggregate: sum, column: amount, window: 7d}
      - {name: weight_stddev_1d, aggregate: stddev, column: weight, window: 1d}
      - {name: count_1d_before, aggregate: count, window: 1d, offset: 2d}
  - name: upload_lifetimes
    entity: shopper
    source: uploads
    start: 2024-01-01
    features:
      - {name: count_6h, aggregate: count, window: 6h}
      - {name: amount_sum, aggregate: sum, column: amount, window: lifetime}
      - {name: weight_avg, aggregate: avg, column: weight, window: lifetime}
      - {name: last_amount, aggregate: last, column: amount, window: lifetime}
      - {name: first_seen, aggregate: first, column: seen, window: lifetime}
      - {name: latest_seen, aggregate: max, column: seen, window: lifetime}
      - {name: sum_before, aggregate: sum, column: amount, window: lifetime, offset: 1d}
"""

Tiles = dict[str, dict[int, Tile]]
"""Tiles by shopper and start."""


def plan_of(settings: Settings) -> Plan:
    """Return the plan of ``DECLARATIONS``, written to the settings' own folder of views."""
    folder = Path(settings.views[-1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "uploads.yaml").write_text(DECLARATIONS, encoding="utf-8")
    plan, faults = load_valid_plan(settings)
    assert not faults
    return plan


def random_tiles(
    view: ViewPlan, seed: int, days: int, shoppers: int = 6, events: int = 400
) -> Tiles:
    """Return tiles of random events, of which every third lies in its day's last hour."""
    chance = random.Random(seed)
    held: dict[str, dict[int, list[TileEvent]]] = defaultdict(lambda: defaultdict(list))
    for event_id in range(events):
        at = START_MS + chance.randrange(days * DAY_MS)
        if event_id % 3 == 0:
            at = at // DAY_MS * DAY_MS + DAY_MS - 1 - chance.randrange(HOUR_MS)
        values = {
            "amount": Decimal(chance.randrange(-10_000, 10_000)).scaleb(-2),
            "weight": chance.choice([None, chance.randrange(100) / 8]),
            "seen": at - 5,
        }
        measures = {m.name: values[m.expression.columns[0]] for m in view.measures}
        event = TileEvent(Place(at, at + 1, event_id), measures)
        shopper = f"shopper {chance.randrange(shoppers)}"
        held[shopper][tile_start_ms(at, view.tile_hop_ms)].append(event)
    return {
        shopper: {start: build_tile(view, group) for start, group in groups.items()}
        for shopper, groups in held.items()
    }


def build(settings: Settings, view: ViewPlan, tiles: Tiles, days: Iterable[date]) -> None:
    """Replace these days of the view's tiles table, and log them as built."""
    import pyarrow as pa
    from deltalake import write_deltalake

    version, wanted = claim_version(settings, view), set(days)
    rows = [
        {"shopper": shopper, TILE_START: start, **tile, "event_date": _day(start)}
        for shopper, by_start in tiles.items()
        for start, tile in by_start.items()
        if _day(start) in wanted
    ]
    columns = [_Column("shopper", pa.string()), _Column(TILE_START, pa.int64())]
    columns += [_Column(c.name, _type_of(view, c)) for c in tile_columns(view)]
    columns.append(_Column("event_date", pa.date32()))
    table = pa.table({c.name: c.array(rows) for c in columns})
    name = tiles_table(view.name, version)
    predicate = " OR ".join(f"event_date = '{day}'" for day in sorted(wanted))
    is_new = not (Path(settings.lake) / name).exists()
    write_deltalake(
        rs_path(settings, name),
        table,
        mode="overwrite",
        partition_by=["event_date"],
        predicate=None if is_new else predicate,
    )
    outcomes = tuple(PartitionOutcome(day) for day in sorted(wanted))
    append_partition_log(settings, BuildReport(name, version, 0, outcomes), view.fingerprint)


def touch_events(settings: Settings, view: ViewPlan, day: date) -> None:
    """Commit a file to a day of the view's events, as the archive does with a late event."""
    import pyarrow as pa
    from deltalake import write_deltalake

    table = pa.table({"id": pa.array([1]), "event_date": pa.array([day], pa.date32())})
    path = rs_path(settings, events_table(view.source.name))
    write_deltalake(path, table, mode="append", partition_by=["event_date"])


class _Column:
    def __init__(self, name: str, type_: Any) -> None:
        self.name, self.type = name, type_

    def array(self, rows: Iterable[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        return pa.array([_plain(row[self.name], self.type) for row in rows], self.type)


def _type_of(view: ViewPlan, column: TileColumn) -> Any:
    import pyarrow as pa

    if not column.partial.holds_edge:
        return arrow_type(column.type)
    assert view.source.event_id is not None
    id_type: DataType = view.source.column(view.source.event_id).type
    return pa.struct(
        [
            ("event_ms", pa.int64()),
            ("ingest_ms", pa.int64()),
            ("event_id", arrow_type(id_type)),
            ("value", arrow_type(column.type)),
        ]
    )


def _plain(value: Any, type_: Any) -> Any:
    import pyarrow as pa

    if value is not None and pa.types.is_timestamp(type_):
        return value * 1000
    if value is not None and pa.types.is_struct(type_):
        edge = value._asdict()
        return {**edge, "value": _plain(edge["value"], type_.field("value").type)}
    return value


def _day(start_ms: int) -> date:
    return datetime.fromtimestamp(start_ms / 1000, tz=UTC).date()
