-- shopper_activity, from the raw file alone.
-- online_retail: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, customer_id, q,
    date_trunc('HOUR', q - INTERVAL '1' DAY) AS day_ago,
    date_trunc('DAY', q - INTERVAL '30' DAY) AS month_ago,
    date_trunc('DAY', q - INTERVAL '90' DAY) AS quarter_ago
  FROM asked
),
lines AS (
  SELECT invoice_ts, customer_id, country, quantity, CAST(unit_price AS DECIMAL(10, 2)) AS unit_price
  FROM online_retail
)
SELECT
  e.row,
  count_if(l.invoice_ts >= day_ago) AS shopper_lines_1d,
  count_if(l.invoice_ts >= month_ago) AS shopper_lines_30d,
  sum(l.quantity * l.unit_price) FILTER (WHERE l.invoice_ts >= month_ago) AS shopper_spend_30d,
  sum(CASE WHEN l.quantity < 0 THEN 1 ELSE 0 END)
    FILTER (WHERE l.invoice_ts >= month_ago) AS shopper_returns_30d,
  max(l.unit_price) FILTER (WHERE l.invoice_ts >= quarter_ago) AS shopper_price_max_90d,
  min_by(l.country, struct(l.invoice_ts, l.country))
    FILTER (WHERE l.country IS NOT NULL) AS shopper_first_country
FROM edges AS e
LEFT JOIN lines AS l
  ON l.customer_id = e.customer_id
  AND l.invoice_ts >= TIMESTAMP '2010-12-01 00:00:00'
  AND l.invoice_ts < e.q
GROUP BY e.row
