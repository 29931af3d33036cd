-- aircraft_history, from the raw file alone.
-- flights: the file. asked: row, the keys, q (the instant the question is asked about).
WITH edges AS (
  SELECT
    row, tailnum, q,
    date_trunc('DAY', q - INTERVAL '30' DAY) AS month_ago,
    date_trunc('HOUR', q - INTERVAL '7' DAY) AS week_ago
  FROM asked
)
SELECT
  e.row,
  count(f.departed_at) AS flights_lifetime,
  sum(f.distance_miles) FILTER (WHERE f.departed_at >= month_ago) AS distance_sum_30d,
  avg(f.air_time_min) FILTER (WHERE f.departed_at >= month_ago) AS air_time_avg_30d,
  min(f.dep_delay_min) FILTER (WHERE f.departed_at >= week_ago) AS dep_delay_min_7d,
  max_by(f.dest, struct(f.departed_at, f.flight_id)) FILTER (WHERE f.dest IS NOT NULL) AS last_dest,
  min_by(f.origin, struct(f.departed_at, f.flight_id)) FILTER (WHERE f.origin IS NOT NULL) AS first_origin
FROM edges AS e
LEFT JOIN flights AS f
  ON f.tailnum = e.tailnum
  AND f.departed_at >= TIMESTAMP '2013-01-01 00:00:00'
  AND f.departed_at < e.q
GROUP BY e.row
