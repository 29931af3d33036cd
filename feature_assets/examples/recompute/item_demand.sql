-- item_demand, from the raw file alone: returns and zero prices are left out.
-- online_retail: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, stock_code, q,
    timestamp_seconds(unix_seconds(q - INTERVAL '1' HOUR) DIV 300 * 300) AS hour_ago,
    date_trunc('HOUR', q - INTERVAL '1' DAY) AS day_ago,
    date_trunc('HOUR', q - INTERVAL '7' DAY) AS week_ago,
    date_trunc('DAY', q - INTERVAL '30' DAY) AS month_ago
  FROM asked
),
sold AS (
  SELECT invoice_ts, stock_code, quantity, CAST(unit_price AS DECIMAL(10, 2)) AS unit_price
  FROM online_retail
)
SELECT
  e.row,
  sum(s.quantity) FILTER (WHERE s.invoice_ts >= hour_ago) AS item_quantity_1h,
  sum(s.quantity) FILTER (WHERE s.invoice_ts >= day_ago) AS item_quantity_1d,
  sum(s.quantity) FILTER (WHERE s.invoice_ts >= week_ago) AS item_quantity_7d,
  avg(CAST(s.unit_price AS DOUBLE)) FILTER (WHERE s.invoice_ts >= week_ago) AS item_price_avg_7d,
  stddev_samp(s.quantity) FILTER (WHERE s.invoice_ts >= month_ago) AS item_quantity_stddev_30d,
  max_by(s.unit_price, struct(s.invoice_ts, s.unit_price))
    FILTER (WHERE s.unit_price IS NOT NULL) AS item_last_price
FROM edges AS e
LEFT JOIN sold AS s
  ON s.stock_code = e.stock_code
  AND s.quantity > 0
  AND s.unit_price > 0
  AND s.invoice_ts >= TIMESTAMP '2010-12-01 00:00:00'
  AND s.invoice_ts < e.q
GROUP BY e.row
