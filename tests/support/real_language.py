"""The language's aggregates and windows over real data, and the same recomputed in DuckDB.

``python -m tests.support.real_language`` compares every event of ``MILLRACE_DATA``; the test takes a share of
the keys. Nothing of ours but the kernel computes the one side, nothing but SQL the other.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from millrace.kernel.arrow import KernelView, join_features
from resources.declarations import plan_of
from resources.settings import settings_from_env

VIEWS = """
version: millrace/v1
sources:
  - name: payments
    columns: {transaction_id: int64, tx_ts: timestamp, customer_id: int64, terminal_id: int64, amount: "decimal(12,2)"}
    event_time: tx_ts
    event_id: transaction_id
    batch: {format: parquet, path: card_transactions.parquet}
  - name: lines
    columns: {stock_code: string, quantity: int64, invoice_ts: timestamp, customer_id: int64}
    event_time: invoice_ts
    batch: {format: parquet, path: online_retail.parquet}
entities:
  - {name: payer, join_key: customer_id, type: int64}
  - {name: till, join_key: terminal_id, type: int64}
feature_views:
  - name: payer_lists
    entity: payer
    source: payments
    start: 2018-04-01
    features:
      - {name: "tills_{window}", aggregate: distinct, column: terminal_id, limit: 10000, windows: [1d, 7d, 30d]}
      - {name: "about_{window}", aggregate: approx_distinct, column: terminal_id, windows: [1d, 7d, 30d]}
      - {name: last_tills, aggregate: last_k, column: terminal_id, k: 5, window: 30d}
      - {name: first_tills, aggregate: first_k, column: terminal_id, k: 3, window: 7d}
      - {name: median_30d, aggregate: median, column: amount, window: 30d}
      - {name: p95_30d, aggregate: percentile, p: 95, column: amount, window: 30d}
      - {name: idle_ms, aggregate: time_since_last, window: 30d}
      - {name: "n_{window}", aggregate: count, windows: [1d, 7d]}
      - {name: share, derive: "n_1d / NULLIF(n_7d, 0)"}
      - {name: day_sum, aggregate: sum, column: amount, window: {tumbling: 1d, timezone: America/Santiago}}
      - {name: day_before_n, aggregate: count, window: {tumbling: 1d, timezone: America/Santiago, previous: 1}}
      - {name: run_n, aggregate: count, window: {session: 30m, max: 1d}}
      - {name: run_sum, aggregate: sum, column: amount, window: {session: 30m, max: 1d}}
      - {name: run_began_ms, aggregate: time_since_first, window: {session: 30m, max: 1d}}
  - name: till_payers
    entity: till
    source: payments
    start: 2018-04-01
    features:
      - {name: "payers_{window}", aggregate: distinct, column: customer_id, limit: 10000, windows: [1d, 7d, 30d]}
      - {name: "about_{window}", aggregate: approx_distinct, column: customer_id, windows: [1d, 7d, 30d]}
  - name: buyer_stock
    entity: payer
    source: lines
    start: 2010-12-01
    features:
      - {name: top_stock, aggregate: top_k, column: stock_code, k: 3, limit: 10000, window: 90d}
      - {name: today, aggregate: sum, column: quantity, window: {tumbling: 1d, timezone: Europe/London}}
      - {name: yesterday, aggregate: sum, column: quantity, window: {tumbling: 1d, timezone: Europe/London, previous: 1}}
      - {name: this_week, aggregate: count, window: {tumbling: 1w, timezone: Europe/London}}
      - {name: last_week, aggregate: count, window: {tumbling: 1w, timezone: Europe/London, previous: 1}}
"""

HOUR = 3_600_000
DAY = 24 * HOUR
HOPS = {1: HOUR, 7: HOUR, 30: DAY, 90: DAY}
"""Hops of windows of so many days, by hand: the largest of the usual ones within a twelfth."""

SESSION = 1_800_000
APPROX_ERROR = 1.04 / 4096**0.5
_NORMAL_99 = 2.576


def tail(days: int, now: str = "t") -> str:
    """Return the first instant of a window."""
    return f"(({now} - {days * DAY}) // {HOPS[days]} * {HOPS[days]})"


def over(key: str, days: int) -> str:
    """Return the frame of ``floor(t - W, h) <= event time < t``."""
    return f"OVER (PARTITION BY {key} ORDER BY t RANGE BETWEEN t - {tail(days)} PRECEDING AND 1 PRECEDING)"


@dataclass(frozen=True)
class Case:
    """One view: its events, and what is expected at each instant of each key.

    Attributes:
        events: SQL of the events, with ``key``, ``t`` and the columns of the source.
        expected: SQL over the table ``e`` of these events: one row each key and ``t``.
        agreement: by feature, the SQL that is true of a found ``f`` and an expected ``x`` that agree;
            else they must not be distinct.
        most_wrong: by feature, the share of rows that may disagree.
    """

    events: str
    expected: str
    agreement: dict[str, str]
    most_wrong: dict[str, float]


def _approximate(found: str, exact: str) -> str:
    return f"abs(f.{found} - x.{exact}) <= {_NORMAL_99 * APPROX_ERROR} * x.{exact} + 0.5"


def _within_a_hundredth(name: str) -> str:
    return (
        f"(f.{name} IS NULL) = (x.{name} IS NULL) AND "
        f"coalesce(abs(f.{name} - x.{name}) <= 0.01 * abs(x.{name}), true)"
    )


_DAYS = (1, 7, 30)
_PAYMENTS = """SELECT transaction_id, epoch_ms(tx_ts) t, customer_id::BIGINT customer_id,
    terminal_id::BIGINT terminal_id, amount::DECIMAL(12,2) amount
    FROM '{data}/card_transactions.parquet'"""


def _distincts(key: str, other: str, name: str) -> str:
    return ", ".join(
        f"count(DISTINCT {other}) {over(key, days)} AS {name}_{days}d" for days in _DAYS
    )


WINTER = (1_526_180_400_000, 1_534_046_400_000)
"""Winter time of Santiago in 2018: from 13 May, 03:00 UTC, to 12 August, 04:00 UTC.

Payments are made at all hours. The day before it began has 25 hours, the day that it ended on begins at 01:00.
"""


def _began_in_santiago(back: int) -> str:
    """Return where Santiago's day of ``t`` began, or one ``back`` before it; as for London."""
    is_winter = f"t >= {WINTER[0]} AND t < {WINTER[1]}"
    local = f"(t - CASE WHEN {is_winter} THEN {4 * HOUR} ELSE {3 * HOUR} END)"
    begin = f"({local} // {DAY} * {DAY} - {back * DAY})"
    in_winter = f"{begin} + {4 * HOUR} BETWEEN {WINTER[0]} AND {WINTER[1]}"
    return f"({begin} + CASE WHEN {in_winter} THEN {4 * HOUR} ELSE {3 * HOUR} END)"


def _since(instant: str) -> str:
    return f"OVER (PARTITION BY customer_id ORDER BY t RANGE BETWEEN t - {instant} PRECEDING AND 1 PRECEDING)"


_PAYER_SQL = f"""
WITH w AS (
  SELECT customer_id, t, {_distincts("customer_id", "terminal_id", "tills")},
    list(terminal_id ORDER BY t, transaction_id) {over("customer_id", 30)} AS tills,
    list(terminal_id ORDER BY t, transaction_id) {over("customer_id", 7)} AS tills_week,
    list(amount ORDER BY amount) {over("customer_id", 30)} AS amounts,
    sum(amount) {_since(_began_in_santiago(0))} AS day_sum,
    count(*) {_since(_began_in_santiago(1))} - count(*) {_since(_began_in_santiago(0))} AS day_before_n,
    t - max(t) {over("customer_id", 30)} AS idle_ms,
    count(*) {over("customer_id", 1)} AS n_1d, count(*) {over("customer_id", 7)} AS n_7d
  FROM e),
breaks AS (
  SELECT *, t - lag(t, 1, -1000000000000) OVER (PARTITION BY customer_id ORDER BY t, transaction_id) >= {SESSION} AS is_new
  FROM e),
runs AS (
  SELECT *, sum(is_new::INT) OVER (PARTITION BY customer_id ORDER BY t, transaction_id ROWS UNBOUNDED PRECEDING) AS run
  FROM breaks),
sessions AS (
  SELECT DISTINCT ON (customer_id, t) customer_id, t,
    count(*) {{run}} AS run_n, sum(amount) {{run}} AS run_sum, t - min(t) {{run}} AS run_began_ms
  FROM runs)
SELECT DISTINCT ON (customer_id, t) w.* EXCLUDE (tills, tills_week, amounts),
  {", ".join(f"tills_{d}d AS about_{d}d" for d in _DAYS)},
  coalesce(list_reverse(tills)[:5], []) AS last_tills, coalesce(tills_week[:3], []) AS first_tills,
  amounts[ceil(0.5 * len(amounts))::INT]::DOUBLE AS median_30d,
  amounts[((95 * len(amounts) + 99) // 100)::INT]::DOUBLE AS p95_30d,
  n_1d / nullif(n_7d, 0) AS share, run_n, run_sum, run_began_ms
FROM w JOIN sessions USING (customer_id, t)
""".replace(
    "{run}",
    "OVER (PARTITION BY customer_id, run ORDER BY t RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)",
)

_TILL_SQL = f"""
SELECT DISTINCT ON (terminal_id, t) *, {", ".join(f"payers_{d}d AS about_{d}d" for d in _DAYS)}
FROM (SELECT terminal_id, t, {_distincts("terminal_id", "customer_id", "payers")} FROM e)
"""


SUMMER = (1_301_187_600_000, 1_319_936_400_000)
"""Summer time of London in 2011: from 27 March to 30 October, 01:00 UTC."""


def _began(days: int, back: int) -> str:
    """Return where London's day, or week from Monday, of ``t`` began, or one ``back`` before it.

    The lines are of 2010 and 2011, which know one summer. The epoch was a Thursday.
    """
    length, monday = days * DAY, 4 * DAY if days == 7 else 0
    local = f"(t + {_summer('t')})"
    begin = f"(({local} - {monday}) // {length} * {length} + {monday} - {back * length})"
    return f"{begin} - {_summer(f'{begin} - {HOUR}')}"


def _summer(instant: str) -> str:
    return (
        f"(CASE WHEN {instant} >= {SUMMER[0]} AND {instant} < {SUMMER[1]} THEN {HOUR} ELSE 0 END)"
    )


_BUYER_SQL = f"""
WITH q AS (
  SELECT DISTINCT customer_id, t, {tail(90)} AS tail,
    {_began(1, 0)} AS today, {_began(1, 1)} AS yesterday,
    {_began(7, 0)} AS this_week, {_began(7, 1)} AS last_week FROM e),
counts AS (
  SELECT q.customer_id, q.t, e.stock_code, count(*) AS n FROM q JOIN e
  ON e.customer_id = q.customer_id AND e.t >= q.tail AND e.t < q.t GROUP BY ALL),
tops AS (
  SELECT customer_id, t, list(stock_code ORDER BY n DESC, stock_code)[:3] AS top_stock
  FROM counts GROUP BY ALL),
units AS (
  SELECT q.customer_id, q.t,
    sum(quantity) FILTER (e.t >= today AND e.t < q.t) AS today,
    sum(quantity) FILTER (e.t >= yesterday AND e.t < today) AS yesterday,
    count(*) FILTER (e.t >= this_week AND e.t < q.t) AS this_week,
    count(*) FILTER (e.t >= last_week AND e.t < this_week) AS last_week
  FROM q JOIN e ON e.customer_id = q.customer_id AND e.t >= least(q.last_week, q.yesterday)
    AND e.t <= q.t GROUP BY ALL)
SELECT units.*, coalesce(top_stock, []) AS top_stock
FROM units LEFT JOIN tops USING (customer_id, t)
"""

_ABOUT = {f"about_{days}d": 0.01 for days in _DAYS}

CASES = {
    "payer_lists": Case(
        _PAYMENTS,
        _PAYER_SQL,
        {name: _approximate(name, name) for name in _ABOUT}
        | {name: _within_a_hundredth(name) for name in ("median_30d", "p95_30d")},
        _ABOUT,
    ),
    "till_payers": Case(
        _PAYMENTS, _TILL_SQL, {name: _approximate(name, name) for name in _ABOUT}, _ABOUT
    ),
    "buyer_stock": Case(
        """SELECT stock_code, epoch_ms(invoice_ts) t, quantity::BIGINT quantity,
            customer_id::BIGINT customer_id
            FROM '{data}/online_retail.parquet' WHERE customer_id IS NOT NULL""",
        _BUYER_SQL,
        {},
        {},
    ),
}


@dataclass(frozen=True)
class Compared:
    """What came of one feature: how many rows disagree, of how many, and how many may."""

    view: str
    feature: str
    rows: int
    wrong: int
    allowed: int


def compare(view: str, *, one_key_of: int = 1) -> Iterator[Compared]:
    """Compute a view at each event of ``MILLRACE_DATA``; say of each feature where DuckDB disagrees.

    Args:
        view: one of ``CASES``.
        one_key_of: take one of so many keys, with all their events.
    """
    case = CASES[view]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "views.yaml"
        path.write_text(VIEWS, encoding="utf-8")
        plan = plan_of([path]).views[view]
    key = plan.join_keys[0]
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(
        f"CREATE TABLE e AS SELECT * FROM ({case.events.format(data=settings_from_env().data)}) "
        f"WHERE {key} % {one_key_of} = 0"
    )
    measures = ", ".join(f"{m.expression.columns[0]} AS {m.name}" for m in plan.measures)
    ids = "transaction_id AS _event_id, " if plan.source.event_id else ""
    events = connection.sql(
        f"SELECT {key}, t AS _event_ms, t AS _ingest_ms, {ids}{measures} FROM e"
    ).to_arrow_table()
    spine = connection.sql(f"SELECT DISTINCT {key}, t AS _query_ms FROM e").to_arrow_table()
    with _measured(f"{view}: kernel, {spine.num_rows:,} rows of {events.num_rows:,} events"):
        features = join_features(KernelView.of(plan), events, spine)
    with _measured(f"{view}: DuckDB"):
        connection.execute(f"CREATE TABLE expected AS {case.expected}")
    yield from _compared(view, connection, spine, features)


def _compared(
    view: str, connection: duckdb.DuckDBPyConnection, spine: pa.Table, features: pa.Table
) -> Iterator[Compared]:
    case, key = CASES[view], spine.column_names[0]
    found = pa.table(
        {key: spine.column(key), "t": spine.column("_query_ms")}
        | {name: features.column(name) for name in features.column_names}
    )
    connection.register("found", found)
    for name in features.column_names:
        agrees = case.agreement.get(name, f"f.{name} IS NOT DISTINCT FROM x.{name}")
        counted = connection.execute(
            f"SELECT count(*), count(*) FILTER (x.t IS NULL OR f.t IS NULL OR NOT ({agrees})) "
            f"FROM found f FULL JOIN expected x ON f.{key} = x.{key} AND f.t = x.t"
        ).fetchall()
        rows, wrong = counted[0]
        yield Compared(view, name, rows, wrong, int(case.most_wrong.get(name, 0) * rows))


@contextmanager
def _measured(what: str) -> Iterator[None]:
    """Say on stderr how many seconds of CPU a step took, and the process' peak memory so far."""
    began = time.process_time()
    yield
    used = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sys.stderr.write(f"{what}: {used:.1f} s of CPU, peak so far {peak:,} MiB\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare views in full; exit 1 if one disagrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("views", nargs="*", default=list(CASES))
    parser.add_argument("--one-key-of", type=int, default=1)
    given = parser.parse_args(arguments)
    is_wrong = False
    for view in given.views:
        for one in compare(view, one_key_of=given.one_key_of):
            is_wrong |= one.wrong > one.allowed
            sys.stdout.write(
                f"{one.view}.{one.feature}: {one.wrong:,} of {one.rows:,} rows disagree"
                f" (allowed {one.allowed:,})\n"
            )
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
