-- customer_spend, from the raw file alone.
-- card_transactions: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, customer_id, q,
    timestamp_seconds(unix_seconds(q - INTERVAL '1' HOUR) DIV 300 * 300) AS hour_ago,
    date_trunc('HOUR', q - INTERVAL '1' DAY) AS day_ago,
    date_trunc('HOUR', q - INTERVAL '7' DAY) AS week_ago,
    date_trunc('DAY', q - INTERVAL '30' DAY) AS month_ago
  FROM asked
),
payments AS (
  SELECT transaction_id, tx_ts, customer_id, terminal_id, CAST(amount AS DECIMAL(12, 2)) AS amount
  FROM card_transactions
)
SELECT
  e.row,
  count_if(p.tx_ts >= hour_ago) AS customer_tx_count_1h,
  count_if(p.tx_ts >= day_ago) AS customer_tx_count_1d,
  count_if(p.tx_ts >= week_ago) AS customer_tx_count_7d,
  count_if(p.tx_ts >= month_ago) AS customer_tx_count_30d,
  sum(p.amount) FILTER (WHERE p.tx_ts >= day_ago) AS customer_amount_sum_1d,
  sum(p.amount) FILTER (WHERE p.tx_ts >= week_ago) AS customer_amount_sum_7d,
  avg(CAST(p.amount AS DOUBLE)) FILTER (WHERE p.tx_ts >= day_ago) AS customer_amount_avg_1d,
  avg(CAST(p.amount AS DOUBLE)) FILTER (WHERE p.tx_ts >= week_ago) AS customer_amount_avg_7d,
  avg(CAST(p.amount AS DOUBLE)) FILTER (WHERE p.tx_ts >= month_ago) AS customer_amount_avg_30d,
  max(p.amount) FILTER (WHERE p.tx_ts >= week_ago) AS customer_amount_max_7d,
  stddev_samp(CAST(p.amount AS DOUBLE)) FILTER (WHERE p.tx_ts >= month_ago) AS customer_amount_stddev_30d,
  sum(CASE WHEN p.amount > 100 THEN 1 ELSE 0 END) FILTER (WHERE p.tx_ts >= day_ago) AS customer_big_1d,
  max_by(p.terminal_id, struct(p.tx_ts, p.transaction_id))
    FILTER (WHERE p.terminal_id IS NOT NULL) AS customer_last_terminal
FROM edges AS e
LEFT JOIN payments AS p
  ON p.customer_id = e.customer_id
  AND p.amount > 0
  AND p.tx_ts >= TIMESTAMP '2018-04-01 00:00:00'
  AND p.tx_ts < e.q
GROUP BY e.row
