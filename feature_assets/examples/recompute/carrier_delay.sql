-- carrier_delay, from the raw file alone.
-- flights: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, carrier, q,
    date_trunc('HOUR', q - INTERVAL '1' DAY) AS day_ago,
    date_trunc('HOUR', q - INTERVAL '7' DAY) AS week_ago
  FROM asked
)
SELECT
  e.row,
  avg(f.dep_delay_min) FILTER (WHERE f.departed_at >= day_ago) AS dep_delay_avg_1d,
  avg(f.dep_delay_min) AS dep_delay_avg_7d,
  stddev_samp(f.dep_delay_min) AS dep_delay_stddev_7d,
  max(f.arr_delay_min) AS arr_delay_max_7d,
  count(f.departed_at) AS departures_7d
FROM edges AS e
LEFT JOIN flights AS f
  ON f.carrier = e.carrier
  AND f.departed_at >= TIMESTAMP '2013-01-01 00:00:00'
  AND f.departed_at >= week_ago
  AND f.departed_at < e.q
GROUP BY e.row
