"""Views of no file of this repository over real data, against DuckDB's own window functions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from resources.declarations import load_plan
from resources.settings import Settings, settings_from_env
from tests.support.lake_builds import LakeBuilds

_log = logging.getLogger(__name__)

pytestmark = [pytest.mark.services, pytest.mark.shared_data]

HOUR = 3_600_000
DAY = 24 * HOUR

VIEWS = """
version: millrace/v1
sources:
  - name: payments
    columns: {transaction_id: int64, tx_ts: timestamp, customer_id: int64, terminal_id: int64, amount: "decimal(12,2)", is_fraud: bool}
    event_time: tx_ts
    event_id: transaction_id
    batch: {format: parquet, path: "${MILLRACE_DATA}/card_transactions.parquet"}
  - name: lines
    columns: {stock_code: string, quantity: int64, invoice_ts: timestamp, unit_price: float64, customer_id: int64, country: string}
    event_time: invoice_ts
    batch: {format: parquet, path: "${MILLRACE_DATA}/online_retail.parquet"}
entities:
  - {name: payer, join_key: customer_id, type: int64}
  - {name: till, join_key: terminal_id, type: int64}
  - {name: stock, join_key: stock_code, type: string}
  - {name: land, join_key: country, type: string}
feature_views:
  - name: payer_habits
    entity: payer
    source: payments
    start: 2018-04-01
    features:
      - {name: "n_{window}", aggregate: count, windows: [10s, 2m, 1h, 30d]}
      - {name: sum_1d, aggregate: sum, column: amount, window: 1d, hop: 1s}
      - {name: avg_7d, aggregate: avg, column: amount, window: 7d, hop: 1d}
      - {name: max_7d, aggregate: max, column: amount, window: 7d}
      - {name: sum_ever, aggregate: sum, column: amount, window: lifetime}
      - {name: last_till, aggregate: last, column: terminal_id, window: 7d}
      - {name: sd_30d, aggregate: stddev, column: amount, window: 30d}
  - name: till_risk
    entity: till
    source: payments
    start: 2018-04-01
    filter: "amount > 20"
    features:
      - {name: fraud_7d, aggregate: sum, expr: "CASE WHEN is_fraud THEN 1 ELSE 0 END", window: 7d, offset: 7d}
      - {name: n_30d, aggregate: count, window: 30d, offset: 7d}
  - name: buyer_land
    entities: [payer, land]
    source: lines
    start: 2010-12-01
    features:
      - {name: returns_90d, aggregate: sum, expr: "CASE WHEN quantity < 0 THEN 1 ELSE 0 END", window: 90d}
      - {name: revenue_30d, aggregate: sum, expr: "quantity * unit_price", window: 30d}
      - {name: price_max_1d, aggregate: max, column: unit_price, window: 1d}
  - name: stock_sales
    entity: stock
    source: lines
    start: 2010-12-01
    filter: "quantity > 0 AND unit_price > 0"
    features:
      - {name: quantity_7d, aggregate: sum, column: quantity, window: 7d}
      - {name: n_ever, aggregate: count, window: lifetime}
"""


@dataclass(frozen=True)
class Frame:
    """One recomputed column: an SQL aggregate over ``[floor(t-o-W, h), t)`` or its offset form."""

    name: str
    aggregate: str
    length_ms: int | None
    hop_ms: int
    offset_ms: int = 0

    def sql(self, keys: str) -> str:
        floor = f"(t - {{}}) - ((t - {{}}) % {self.hop_ms})"
        back = self.offset_ms + (self.length_ms or 0)
        begin = "UNBOUNDED" if self.length_ms is None else f"(t - ({floor.format(back, back)}))"
        end = "1"
        if self.offset_ms:
            end = f"(t - ({floor.format(self.offset_ms, self.offset_ms)}) + 1)"
        frame = f"RANGE BETWEEN {begin} PRECEDING AND {end} PRECEDING"
        return f"{self.aggregate} OVER (PARTITION BY {keys} ORDER BY t {frame}) AS {self.name}"


PAYMENTS = """(SELECT transaction_id, epoch_ms(tx_ts) t, customer_id::BIGINT customer_id,
    terminal_id::BIGINT terminal_id, amount::DECIMAL(12,2) a, is_fraud
    FROM '{data}/card_transactions.parquet')"""
LINES = """(SELECT stock_code, epoch_ms(invoice_ts) t, quantity::BIGINT q, unit_price p,
    customer_id::BIGINT customer_id, country FROM '{data}/online_retail.parquet')"""

CASES = {
    "payer_habits": (
        PAYMENTS,
        ("customer_id",),
        "true",
        [
            Frame("n_10s", "count(*)", 10_000, 1_000),
            Frame("n_2m", "count(*)", 120_000, 10_000),
            Frame("n_1h", "count(*)", HOUR, 300_000),
            Frame("n_30d", "count(*)", 30 * DAY, DAY),
            Frame("sum_1d", "sum(a)", DAY, 1_000),
            Frame("avg_7d", "avg(a::DOUBLE)", 7 * DAY, DAY),
            Frame("max_7d", "max(a)", 7 * DAY, HOUR),
            Frame("sum_ever", "sum(a)", None, DAY),
            Frame("last_till", "arg_max(terminal_id, transaction_id)", 7 * DAY, HOUR),
            Frame("sd_30d", "stddev_samp(a::DOUBLE)", 30 * DAY, DAY),
        ],
    ),
    "till_risk": (
        PAYMENTS,
        ("terminal_id",),
        "a > 20",
        [
            Frame("fraud_7d", "sum(is_fraud::BIGINT)", 7 * DAY, HOUR, 7 * DAY),
            Frame("n_30d", "count(*)", 30 * DAY, DAY, 7 * DAY),
        ],
    ),
    "buyer_land": (
        LINES,
        ("customer_id", "country"),
        "true",
        [
            Frame("returns_90d", "sum(CASE WHEN q < 0 THEN 1 ELSE 0 END)", 90 * DAY, DAY),
            Frame("revenue_30d", "sum(q * p)", 30 * DAY, DAY),
            Frame("price_max_1d", "max(p)", DAY, HOUR),
        ],
    ),
    "stock_sales": (
        LINES,
        ("stock_code",),
        "q > 0 AND p > 0",
        [
            Frame("quantity_7d", "sum(q)", 7 * DAY, HOUR),
            Frame("n_ever", "count(*)", None, DAY),
        ],
    ),
}

SPANS = {
    "payments": Days(date(2018, 4, 1), date(2018, 6, 15)),
    "lines": Days(date(2010, 12, 1), date(2011, 4, 1)),
}


@pytest.fixture(scope="module")
def lake(spark_stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four views built over two and a half months of payments, four of invoice lines."""
    root = tmp_path_factory.mktemp("real")
    (root / "unseen.yaml").write_text(VIEWS)
    settings = replace(
        spark_stack,
        lake=str(root / "lake"),
        data=settings_from_env().data,
        views=(root,),
    )
    plan, store = load_plan(settings), LakeBuilds(settings)
    for source, days in SPANS.items():
        views = plan.views_of(source)
        store.build_events(plan.sources[source], views, days, progress=_log.info)
        for view in views:
            assert store.build_features(view, days, progress=_log.info).failed == ()
    return root / "lake"


@pytest.mark.parametrize("view", CASES)
def test_every_value_of_an_unseen_view_equals_duckdbs(lake: Path, view: str) -> None:
    relation, keys, condition, frames = CASES[view]
    days = SPANS["payments" if relation is PAYMENTS else "lines"]
    data = settings_from_env().data
    connection = duckdb.connect()
    found = DeltaTable(str(lake / "features" / view / "v1")).to_pyarrow_table()
    connection.register("found", found)
    recompute(connection, relation.format(data=data), keys, condition, frames, days)
    rows = connection.execute("SELECT count(*) FROM expected").fetchall()[0][0]
    assert found.num_rows == rows > 50_000
    doubles = {f.name for f in found.schema if str(f.type) == "double"}
    for frame in frames:
        assert mismatches(connection, keys, frame.name, is_double=frame.name in doubles) == 0


def recompute(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    keys: Sequence[str],
    condition: str,
    frames: Sequence[Frame],
    days: Days,
) -> None:
    columns = ", ".join(frame.sql(", ".join(keys)) for frame in frames)
    present = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    connection.execute(
        f"CREATE TABLE expected AS SELECT {', '.join(keys)}, t, {columns} FROM "
        f"(SELECT * FROM {relation} WHERE {condition} AND {present} AND t < {days.end_ms})"
    )


def mismatches(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[str], name: str, *, is_double: bool
) -> int:
    """Count rows that differ or are on one side alone; rows of one key and instant are equal."""
    differs = f"f.{name} IS DISTINCT FROM e.{name}"
    if is_double:
        differs = (
            f"(f.{name} IS NULL) <> (e.{name} IS NULL) OR "
            # A running sum of doubles leaves DuckDB with dust where the truth is near zero.
            f"abs(f.{name} - e.{name}) > greatest(1e-9 * abs(e.{name}), 1e-6)"
        )
    same = " AND ".join(f"f.{key} = e.{key}" for key in keys)
    once = f"SELECT DISTINCT ON ({', '.join(keys)}, t) * FROM expected"
    found = connection.execute(
        f"SELECT count(*) FILTER (e.t IS NULL OR {differs}) FROM found f "
        f"LEFT JOIN ({once}) e ON {same} AND epoch_ms(f.event_time) = e.t"
    ).fetchall()
    return int(found[0][0])
