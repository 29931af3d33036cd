-- measures
SELECT
  `customer_id`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  `amount` AS `m0`
FROM `events`
WHERE
  `_event_ms` >= 1704067200000 AND NOT `customer_id` IS NULL
;

-- tiles
SELECT
  `customer_id`,
  `tile_start_ms`,
  COUNT(*) AS `rows`,
  MIN(`_event_ms`) AS `first_ms`,
  COUNT(`m0`) AS `m0_count`,
  CAST(TRY_SUM(`m0`) AS DECIMAL(38, 2)) AS `m0_sum`,
  MAX(`m0`) AS `m0_max`,
  MAX(`_event_ms`) AS `last_event_ms`,
  DATE_FROM_UNIX_DATE(
    CAST((
      `tile_start_ms` - PMOD(`tile_start_ms`, 86400000)
    ) DIV 86400000 AS INT)
  ) AS `event_date`
FROM (
  SELECT
    `customer_id`,
    `_event_ms`,
    `_ingest_ms`,
    `payment_id` AS `_event_id`,
    `_event_ms` - PMOD(`_event_ms`, 300000) AS `tile_start_ms`,
    `amount` AS `m0`
  FROM `events`
  WHERE
    `_event_ms` >= 1704067200000 AND NOT `customer_id` IS NULL
) AS `measured`
GROUP BY
  `customer_id`,
  `tile_start_ms`
;
