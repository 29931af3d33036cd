-- airport_departures, from the raw file alone.
-- flights: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, origin, q,
    timestamp_seconds(unix_seconds(q - INTERVAL '1' HOUR) DIV 300 * 300) AS hour_ago,
    date_trunc('HOUR', q - INTERVAL '1' DAY) AS day_ago,
    timestamp_seconds(unix_seconds(q - INTERVAL '1' DAY) DIV 300 * 300) AS day_ago_by_5m,
    timestamp_seconds(unix_seconds(q - INTERVAL '7' DAY - INTERVAL '1' HOUR) DIV 300 * 300) AS week_ago_from,
    timestamp_seconds(unix_seconds(q - INTERVAL '7' DAY) DIV 300 * 300) AS week_ago_to
  FROM asked
)
SELECT
  e.row,
  count_if(f.departed_at >= hour_ago) AS departures_1h,
  count_if(f.departed_at >= day_ago) AS departures_1d,
  avg(f.dep_delay_min) FILTER (WHERE f.departed_at >= hour_ago) AS dep_delay_avg_1h,
  max(f.dep_delay_min) FILTER (WHERE f.departed_at >= day_ago) AS dep_delay_max_1d,
  sum(CASE WHEN f.dep_delay_min > 15 THEN 1 ELSE 0 END)
    FILTER (WHERE f.departed_at >= day_ago_by_5m) AS late_departures_1d,
  count_if(f.departed_at >= week_ago_from AND f.departed_at < week_ago_to) AS departures_last_week_1h
FROM edges AS e
LEFT JOIN flights AS f
  ON f.origin = e.origin
  AND f.departed_at >= TIMESTAMP '2013-01-01 00:00:00'
  AND f.departed_at >= week_ago_from
  AND f.departed_at < e.q
GROUP BY e.row
