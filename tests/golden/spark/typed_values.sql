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
  `total` AS `m4`,
  CASE WHEN `total` > 0 THEN 1L ELSE 0L END AS `m5`,
  `taste` AS `m6`
FROM `events`
WHERE
  `_event_ms` >= 1709164800000 AND NOT `sensor` IS NULL
;

-- tiles
SELECT
  `sensor`,
  `tile_start_ms`,
  `rows`,
  `m0_min`,
  MILLRACE_ENCODE('distinct', 'date', `m0_values`, 1000) AS `m0_distinct_1000`,
  MILLRACE_ENCODE('value_counts', 'date', `m0_values`, 1000) AS `m0_value_counts_1000`,
  MILLRACE_ENCODE('last_k', 'date', `m0_events`, 3) AS `m0_last_k_3`,
  MILLRACE_ENCODE('registers', 'date', `m0_values`, 12) AS `m0_registers_12`,
  `m1_max`,
  `m1_last`,
  MILLRACE_ENCODE('distinct', 'timestamp', `m1_values`, 1000) AS `m1_distinct_1000`,
  MILLRACE_ENCODE('value_counts', 'timestamp', `m1_values`, 2) AS `m1_value_counts_2`,
  MILLRACE_ENCODE('last_k', 'timestamp', `m1_events`, 3) AS `m1_last_k_3`,
  MILLRACE_ENCODE('registers', 'timestamp', `m1_values`, 12) AS `m1_registers_12`,
  `m2_first`,
  MILLRACE_ENCODE('distinct', 'bool', `m2_values`, 1) AS `m2_distinct_1`,
  MILLRACE_ENCODE('value_counts', 'bool', `m2_values`, 1000) AS `m2_value_counts_1000`,
  MILLRACE_ENCODE('last_k', 'bool', `m2_events`, 3) AS `m2_last_k_3`,
  MILLRACE_ENCODE('registers', 'bool', `m2_values`, 14) AS `m2_registers_14`,
  `m3_last`,
  MILLRACE_ENCODE('distinct', 'bytes', `m3_values`, 3) AS `m3_distinct_3`,
  MILLRACE_ENCODE('value_counts', 'bytes', `m3_values`, 4) AS `m3_value_counts_4`,
  MILLRACE_ENCODE('first_k', 'bytes', `m3_events`, 2) AS `m3_first_k_2`,
  MILLRACE_ENCODE('last_k', 'bytes', `m3_events`, 3) AS `m3_last_k_3`,
  MILLRACE_ENCODE('registers', 'bytes', `m3_values`, 8) AS `m3_registers_8`,
  `m4_count`,
  `m4_sum`,
  MILLRACE_ENCODE('distinct', 'decimal(38,4)', `m4_values`, 1000) AS `m4_distinct_1000`,
  MILLRACE_ENCODE('value_counts', 'decimal(38,4)', `m4_values`, 1000) AS `m4_value_counts_1000`,
  MILLRACE_ENCODE('last_k', 'decimal(38,4)', `m4_events`, 3) AS `m4_last_k_3`,
  MILLRACE_ENCODE('registers', 'decimal(38,4)', `m4_values`, 12) AS `m4_registers_12`,
  MILLRACE_ENCODE('buckets', 'decimal(38,4)', `m4_values`) AS `m4_buckets`,
  MILLRACE_ENCODE('distinct', 'int64', `m5_values`, 1000) AS `m5_distinct_1000`,
  MILLRACE_ENCODE('buckets', 'int64', `m5_values`) AS `m5_buckets`,
  `m6_count`,
  `m6_sums`,
  `m6_first`,
  `m6_last`,
  `last_event_ms`,
  `event_date`
FROM (
  SELECT
    `sensor`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    MIN(`m0`) AS `m0_min`,
    COLLECT_LIST(`m0`) AS `m0_values`,
    COLLECT_LIST(
      CASE
        WHEN NOT `m0` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m0` AS `value`
        )
      END
    ) AS `m0_events`,
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
    COLLECT_LIST(`m1`) AS `m1_values`,
    COLLECT_LIST(
      CASE
        WHEN NOT `m1` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m1` AS `value`
        )
      END
    ) AS `m1_events`,
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
    COLLECT_LIST(`m2`) AS `m2_values`,
    COLLECT_LIST(
      CASE
        WHEN NOT `m2` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m2` AS `value`
        )
      END
    ) AS `m2_events`,
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
    COLLECT_LIST(`m3`) AS `m3_values`,
    COLLECT_LIST(
      CASE
        WHEN NOT `m3` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m3` AS `value`
        )
      END
    ) AS `m3_events`,
    COUNT(`m4`) AS `m4_count`,
    CAST(TRY_SUM(`m4`) AS DECIMAL(38, 4)) AS `m4_sum`,
    COLLECT_LIST(`m4`) AS `m4_values`,
    COLLECT_LIST(
      CASE
        WHEN NOT `m4` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m4` AS `value`
        )
      END
    ) AS `m4_events`,
    COLLECT_LIST(`m5`) AS `m5_values`,
    COUNT(`m6`) AS `m6_count`,
    AGGREGATE(
      COLLECT_LIST(`m6`),
      CAST(NULL AS ARRAY<DOUBLE>),
      (`sums`, `vector`) -> COALESCE(
        ZIP_WITH(`sums`, CAST(`vector` AS ARRAY<DOUBLE>), (`a`, `b`) -> `a` + `b`),
        CAST(`vector` AS ARRAY<DOUBLE>)
      )
    ) AS `m6_sums`,
    MIN(
      CASE
        WHEN NOT `m6` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m6` AS `value`
        )
      END
    ) AS `m6_first`,
    MAX(
      CASE
        WHEN NOT `m6` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m6` AS `value`
        )
      END
    ) AS `m6_last`,
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
      `total` AS `m4`,
      CASE WHEN `total` > 0 THEN 1L ELSE 0L END AS `m5`,
      `taste` AS `m6`
    FROM `events`
    WHERE
      `_event_ms` >= 1709164800000 AND NOT `sensor` IS NULL
  ) AS `measured`
  GROUP BY
    `sensor`,
    `tile_start_ms`
) AS `collected`
;
