-- measures
SELECT
  `shopper`,
  `_event_ms`,
  `_ingest_ms`,
  CASE WHEN ABS(`price`) <= 1.7976931348623157e308 THEN `price` END AS `m0`,
  `sku` AS `m1`
FROM `events`
WHERE
  `_event_ms` >= -86400000 AND NOT `shopper` IS NULL
;

-- tiles
SELECT
  `shopper`,
  `tile_start_ms`,
  COUNT(*) AS `rows`,
  COUNT(`m0`) AS `m0_count`,
  CASE WHEN ABS(SUM(`m0`)) < CAST('Infinity' AS DOUBLE) THEN SUM(`m0`) END AS `m0_sum`,
  MAX(
    CASE
      WHEN NOT `m0` IS NULL
      THEN STRUCT(`_event_ms` AS `event_ms`, `_ingest_ms` AS `ingest_ms`, `m0` AS `value`)
    END
  ) AS `m0_last`,
  MIN(
    CASE
      WHEN NOT `m1` IS NULL
      THEN STRUCT(`_event_ms` AS `event_ms`, `_ingest_ms` AS `ingest_ms`, `m1` AS `value`)
    END
  ) AS `m1_first`,
  MAX(`_event_ms`) AS `last_event_ms`,
  DATE_FROM_UNIX_DATE(
    CAST((
      `tile_start_ms` - PMOD(`tile_start_ms`, 86400000)
    ) DIV 86400000 AS INT)
  ) AS `event_date`
FROM (
  SELECT
    `shopper`,
    `_event_ms`,
    `_ingest_ms`,
    `_event_ms` - PMOD(`_event_ms`, 86400000) AS `tile_start_ms`,
    CASE WHEN ABS(`price`) <= 1.7976931348623157e308 THEN `price` END AS `m0`,
    `sku` AS `m1`
  FROM `events`
  WHERE
    `_event_ms` >= -86400000 AND NOT `shopper` IS NULL
) AS `measured`
GROUP BY
  `shopper`,
  `tile_start_ms`
;
