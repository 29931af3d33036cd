-- measures
SELECT
  `sensor`,
  `_event_ms`,
  `_ingest_ms`,
  `reading_id` AS `_event_id`,
  `due` AS `m0`,
  `serviced_at` AS `m1`,
  `is_open` AS `m2`,
  `payload` AS `m3`,
  `total` AS `m4`
FROM `events`
WHERE
  `_event_ms` >= 1709164800000 AND NOT `sensor` IS NULL
;

-- tiles
SELECT
  `sensor`,
  `tile_start_ms`,
  COUNT(*) AS `rows`,
  MIN(`m0`) AS `m0_min`,
  MAX(`m1`) AS `m1_max`,
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
  MIN(
    CASE
      WHEN NOT `m2` IS NULL
      THEN STRUCT(
        `_event_ms` AS `event_ms`,
        `_ingest_ms` AS `ingest_ms`,
        `_event_id` AS `event_id`,
        `m2` AS `value`
      )
    END
  ) AS `m2_first`,
  MAX(
    CASE
      WHEN NOT `m3` IS NULL
      THEN STRUCT(
        `_event_ms` AS `event_ms`,
        `_ingest_ms` AS `ingest_ms`,
        `_event_id` AS `event_id`,
        `m3` AS `value`
      )
    END
  ) AS `m3_last`,
  COUNT(`m4`) AS `m4_count`,
  CAST(TRY_SUM(`m4`) AS DECIMAL(38, 4)) AS `m4_sum`,
  MAX(`_event_ms`) AS `last_event_ms`,
  DATE_FROM_UNIX_DATE(
    CAST((
      `tile_start_ms` - PMOD(`tile_start_ms`, 86400000)
    ) DIV 86400000 AS INT)
  ) AS `event_date`
FROM (
  SELECT
    `sensor`,
    `_event_ms`,
    `_ingest_ms`,
    `reading_id` AS `_event_id`,
    `_event_ms` - PMOD(`_event_ms`, 3600000) AS `tile_start_ms`,
    `due` AS `m0`,
    `serviced_at` AS `m1`,
    `is_open` AS `m2`,
    `payload` AS `m3`,
    `total` AS `m4`
  FROM `events`
  WHERE
    `_event_ms` >= 1709164800000 AND NOT `sensor` IS NULL
) AS `measured`
GROUP BY
  `sensor`,
  `tile_start_ms`
;
