-- measures
SELECT
  `customer_id`,
  `terminal_code`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  CASE WHEN `amount` > 100 THEN 1L ELSE 0L END AS `m0`,
  CASE WHEN `is_fraud` THEN 1L ELSE 0L END AS `m1`
FROM `events`
WHERE
  `_event_ms` >= 1704067200000
  AND NOT `customer_id` IS NULL
  AND NOT `terminal_code` IS NULL
  AND (
    `amount` > 0 OR `is_fraud`
  )
;

-- tiles
SELECT
  `customer_id`,
  `terminal_code`,
  `tile_start_ms`,
  COUNT(*) AS `rows`,
  COUNT(`m0`) AS `m0_count`,
  CAST(TRY_SUM(CAST(`m0` AS DECIMAL(28, 0))) AS DECIMAL(38, 0)) AS `m0_sum`,
  COUNT(`m1`) AS `m1_count`,
  CAST(TRY_SUM(CAST(`m1` AS DECIMAL(28, 0))) AS DECIMAL(38, 0)) AS `m1_sum`,
  MAX(`_event_ms`) AS `last_event_ms`,
  DATE_FROM_UNIX_DATE(
    CAST((
      `tile_start_ms` - PMOD(`tile_start_ms`, 86400000)
    ) DIV 86400000 AS INT)
  ) AS `event_date`
FROM (
  SELECT
    `customer_id`,
    `terminal_code`,
    `_event_ms`,
    `_ingest_ms`,
    `payment_id` AS `_event_id`,
    `_event_ms` - PMOD(`_event_ms`, 1000) AS `tile_start_ms`,
    CASE WHEN `amount` > 100 THEN 1L ELSE 0L END AS `m0`,
    CASE WHEN `is_fraud` THEN 1L ELSE 0L END AS `m1`
  FROM `events`
  WHERE
    `_event_ms` >= 1704067200000
    AND NOT `customer_id` IS NULL
    AND NOT `terminal_code` IS NULL
    AND (
      `amount` > 0 OR `is_fraud`
    )
) AS `measured`
GROUP BY
  `customer_id`,
  `terminal_code`,
  `tile_start_ms`
;
