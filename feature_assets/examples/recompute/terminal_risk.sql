-- terminal_risk, from the raw file alone: frauds become known a week late.
-- card_transactions: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, terminal_id, q,
    date_trunc('HOUR', q - INTERVAL '1' DAY) AS day_ago,
    date_trunc('HOUR', q - INTERVAL '7' DAY) AS week_ago,
    date_trunc('DAY', q - INTERVAL '30' DAY) AS month_ago,
    date_trunc('HOUR', q - INTERVAL '8' DAY) AS known_day_ago,
    date_trunc('HOUR', q - INTERVAL '14' DAY) AS known_week_ago,
    date_trunc('DAY', q - INTERVAL '37' DAY) AS known_month_ago,
    date_trunc('HOUR', q - INTERVAL '7' DAY) AS known_to,
    date_trunc('DAY', q - INTERVAL '7' DAY) AS known_to_by_day
  FROM asked
)
SELECT
  e.row,
  count_if(t.tx_ts >= day_ago) AS terminal_tx_count_1d,
  count_if(t.tx_ts >= week_ago) AS terminal_tx_count_7d,
  count_if(t.tx_ts >= month_ago) AS terminal_tx_count_30d,
  sum(CASE WHEN t.is_fraud = 1 THEN 1 ELSE 0 END)
    FILTER (WHERE t.tx_ts >= known_day_ago AND t.tx_ts < known_to) AS terminal_fraud_1d,
  sum(CASE WHEN t.is_fraud = 1 THEN 1 ELSE 0 END)
    FILTER (WHERE t.tx_ts >= known_week_ago AND t.tx_ts < known_to) AS terminal_fraud_7d,
  sum(CASE WHEN t.is_fraud = 1 THEN 1 ELSE 0 END)
    FILTER (WHERE t.tx_ts >= known_month_ago AND t.tx_ts < known_to_by_day) AS terminal_fraud_30d,
  avg(CAST(CAST(t.amount AS DECIMAL(12, 2)) AS DOUBLE))
    FILTER (WHERE t.tx_ts >= week_ago) AS terminal_amount_avg_7d
FROM edges AS e
LEFT JOIN card_transactions AS t
  ON t.terminal_id = e.terminal_id
  AND t.tx_ts >= TIMESTAMP '2018-04-01 00:00:00'
  AND t.tx_ts < e.q
GROUP BY e.row
