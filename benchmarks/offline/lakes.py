"""The data of the benchmark: an events table in a Delta lake, and a spine beside it.

Made once per folder; the same scenario always gives the same rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

from millrace.days import Days
from millrace.names import events_table
from millrace.plan import SourcePlan
from offline.tables.partition_log import append_partition_log
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings

DAY_MS = 86_400_000
EPOCH = date(1970, 1, 1)
ROW_ID = "row_id"
"""Spine column that numbers the rows, for comparing results."""


@dataclass(frozen=True)
class Data:
    """Where the made data lie: the lake is in the settings."""

    spine: Path
    rows: int
    events: int


def prepare(kind: str, settings: Settings, source: SourcePlan, options: Mapping[str, Any]) -> Data:
    """Make the lake and the spine of a scenario, unless they are there."""
    spine = Path(settings.lake) / "spine.parquet"
    if not spine.exists():
        Path(settings.lake).mkdir(parents=True, exist_ok=True)
        events, labels = _MAKERS[kind](settings, options)
        _write_events(settings, source, events)
        pq.write_table(labels, spine)
    events_path = f"{settings.lake}/events/{source.name}"
    events_rows = pq.ParquetDataset(events_path).read(columns=["_event_ms"]).num_rows
    return Data(spine, pq.read_metadata(spine).num_rows, events_rows)


def _cards(settings: Settings, _options: Mapping[str, Any]) -> tuple[pa.Table, pa.Table]:
    raw = pq.read_table(settings.expand("${MILLRACE_DATA}/card_transactions.parquet"))
    times = raw["tx_ts"].cast(pa.timestamp("us", "UTC"))
    cents = np.round(raw["amount"].to_numpy() * 100).astype(np.int64)
    events = pa.table(
        {
            "transaction_id": raw["transaction_id"].cast(pa.int64()),
            "tx_ts": times,
            "customer_id": raw["customer_id"].cast(pa.int64()),
            "amount": _decimals(cents),
            "_event_ms": pa.array(times.cast(pa.int64()).to_numpy() // 1000),
        }
    )
    return events, _numbered(events["customer_id"], "customer_id", times)


def _skewed(_settings: Settings, options: Mapping[str, Any]) -> tuple[pa.Table, pa.Table]:
    draw = np.random.default_rng(options["seed"])
    weights = np.arange(1, options["keys"] + 1) ** -options["exponent"]
    edges = np.cumsum(weights) / weights.sum()
    start_ms = (date(2024, 1, 1) - EPOCH).days * DAY_MS

    def keys(count: int) -> pa.Array:
        return pa.array(np.searchsorted(edges, draw.random(count)).astype(np.int64))

    def times(count: int, first_day: int) -> Any:
        low, high = start_ms + first_day * DAY_MS, start_ms + options["days"] * DAY_MS
        return draw.integers(low, high, count)

    event_ms = np.sort(times(options["events"], 0))
    events = pa.table(
        {
            "at": _timestamps(event_ms),
            "key": keys(len(event_ms)),
            "amount": draw.integers(1, 50_000, len(event_ms)),
            "_event_ms": event_ms,
        }
    )
    asked = times(options["labels"], options["days"] - options["label_days"])
    return events, _numbered(keys(len(asked)), "key", _timestamps(asked))


_MAKERS: Mapping[str, Callable[[Settings, Mapping[str, Any]], tuple[pa.Table, pa.Table]]] = {
    "cards": _cards,
    "skewed": _skewed,
}


def _write_events(settings: Settings, source: SourcePlan, events: pa.Table) -> None:
    """Lay events out as a backfill does: everything arrived when it happened."""
    day_numbers = events["_event_ms"].to_numpy() // DAY_MS
    days = pa.array(day_numbers.astype(np.int32)).cast(pa.date32())
    events = events.append_column("_ingest_ms", events["_event_ms"])
    table = events_table(source.name)
    write_deltalake(
        f"{settings.lake}/{table}",
        events.append_column("event_date", days),
        partition_by=["event_date"],
    )
    first, last = (EPOCH + timedelta(days=int(d)) for d in (day_numbers.min(), day_numbers.max()))
    built = tuple(PartitionOutcome(day) for day in Days(first, last + timedelta(days=1)))
    append_partition_log(settings, BuildReport(table, None, 0, built), source.fingerprint)


def _numbered(keys: Any, name: str, times: Any) -> pa.Table:
    rows = pa.array(np.arange(len(keys)))
    return pa.table({ROW_ID: rows, name: keys, "event_timestamp": times})


def _timestamps(instants_ms: Any) -> pa.Array:
    return pa.array(instants_ms * 1000, pa.timestamp("us", "UTC"))


def _decimals(cents: Any) -> pa.Array:
    words = np.stack([cents, cents >> 63], axis=1)
    return pa.Array.from_buffers(
        pa.decimal128(12, 2), len(cents), [None, pa.py_buffer(np.ascontiguousarray(words))]
    )
