-- measures
SELECT
  `customer_id`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  `amount` AS `m0`,
  `paid_at` AS `m1`
FROM `events`
WHERE
  `_event_ms` >= 1704067200000 AND NOT `customer_id` IS NULL
;

-- tiles
SELECT
  `customer_id`,
  `tile_start_ms`,
  COUNT(*) AS `rows`,
  MAX(`_event_ms`) AS `last_ms`,
  COUNT(`m0`) AS `m0_count`,
  CAST(TRY_SUM(`m0`) AS DECIMAL(38, 2)) AS `m0_sum`,
  MAX(`m0`) AS `m0_max`,
  MAX(
    CASE
      WHEN NOT `m1` IS NULL
      THEN STRUCT(
        `_event_ms` AS `event_ms`,
        `_ingest_ms` AS `ingest_ms`,
        `_event_id` AS `event_id`,
        `m1` AS `value`
      )
    END
  ) AS `m1_last`,
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
    `amount` AS `m0`,
    `paid_at` AS `m1`
  FROM `events`
  WHERE
    `_event_ms` >= 1704067200000 AND NOT `customer_id` IS NULL
) AS `measured`
GROUP BY
  `customer_id`,
  `tile_start_ms`
;
