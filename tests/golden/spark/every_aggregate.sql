-- measures
SELECT
  `customer_id`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  `channel` AS `m0`,
  `amount` AS `m1`,
  `items` AS `m2`,
  CASE WHEN ABS(`weight`) <= 1.7976931348623157e308 THEN `weight` END AS `m3`
FROM `events`
WHERE
  `_event_ms` >= 1704067200000 AND NOT `customer_id` IS NULL
;

-- tiles
SELECT
  `customer_id`,
  `tile_start_ms`,
  `rows`,
  `last_ms`,
  `m0_count`,
  `m0_first`,
  `m0_last`,
  `m0_first_ms`,
  MILLRACE_ENCODE('distinct', 'string', `m0_values`, 2) AS `m0_distinct_2`,
  MILLRACE_ENCODE('value_counts', 'string', `m0_values`, 1000) AS `m0_value_counts_1000`,
  MILLRACE_ENCODE('first_k', 'string', `m0_events`, 3) AS `m0_first_k_3`,
  MILLRACE_ENCODE('last_k', 'string', `m0_events`, 5) AS `m0_last_k_5`,
  MILLRACE_ENCODE('registers', 'string', `m0_values`, 8) AS `m0_registers_8`,
  `m1_count`,
  `m1_sum`,
  `m1_mean`,
  `m1_m2`,
  MILLRACE_ENCODE('distinct', 'decimal(12,2)', `m1_values`, 1000) AS `m1_distinct_1000`,
  MILLRACE_ENCODE('buckets', 'decimal(12,2)', `m1_values`) AS `m1_buckets`,
  `m2_count`,
  `m2_sum`,
  `m2_min`,
  MILLRACE_ENCODE('value_counts', 'int32', `m2_values`, 2) AS `m2_value_counts_2`,
  MILLRACE_ENCODE('buckets', 'int32', `m2_values`) AS `m2_buckets`,
  `m3_count`,
  `m3_sum`,
  `m3_max`,
  `m3_mean`,
  `m3_m2`,
  MILLRACE_ENCODE('last_k', 'float64', `m3_events`, 2) AS `m3_last_k_2`,
  MILLRACE_ENCODE('registers', 'float64', `m3_values`, 12) AS `m3_registers_12`,
  MILLRACE_ENCODE('buckets', 'float64', `m3_values`) AS `m3_buckets`,
  `last_event_ms`,
  `event_date`
FROM (
  SELECT
    `customer_id`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    MAX(`_event_ms`) AS `last_ms`,
    COUNT(`m0`) AS `m0_count`,
    MIN(
      CASE
        WHEN NOT `m0` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m0` AS `value`
        )
      END
    ) AS `m0_first`,
    MAX(
      CASE
        WHEN NOT `m0` IS NULL
        THEN STRUCT(
          `_event_ms` AS `event_ms`,
          `_ingest_ms` AS `ingest_ms`,
          `_event_id` AS `event_id`,
          `m0` AS `value`
        )
      END
    ) AS `m0_last`,
    MIN(CASE WHEN NOT `m0` IS NULL THEN `_event_ms` END) AS `m0_first_ms`,
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
    COUNT(`m1`) AS `m1_count`,
    CAST(TRY_SUM(`m1`) AS DECIMAL(38, 2)) AS `m1_sum`,
    CASE
      WHEN ABS(AVG(CAST(`m1` AS DOUBLE))) < CAST('Infinity' AS DOUBLE)
      THEN AVG(CAST(`m1` AS DOUBLE))
    END AS `m1_mean`,
    CASE
      WHEN ABS(VAR_POP(CAST(`m1` AS DOUBLE)) * COUNT(CAST(`m1` AS DOUBLE))) < CAST('Infinity' AS DOUBLE)
      THEN VAR_POP(CAST(`m1` AS DOUBLE)) * COUNT(CAST(`m1` AS DOUBLE))
    END AS `m1_m2`,
    COLLECT_LIST(`m1`) AS `m1_values`,
    COUNT(`m2`) AS `m2_count`,
    CAST(TRY_SUM(CAST(`m2` AS DECIMAL(28, 0))) AS DECIMAL(38, 0)) AS `m2_sum`,
    MIN(`m2`) AS `m2_min`,
    COLLECT_LIST(`m2`) AS `m2_values`,
    COUNT(`m3`) AS `m3_count`,
    CASE WHEN ABS(SUM(`m3`)) < CAST('Infinity' AS DOUBLE) THEN SUM(`m3`) END AS `m3_sum`,
    MAX(`m3`) AS `m3_max`,
    CASE WHEN ABS(AVG(`m3`)) < CAST('Infinity' AS DOUBLE) THEN AVG(`m3`) END AS `m3_mean`,
    CASE
      WHEN ABS(VAR_POP(`m3`) * COUNT(`m3`)) < CAST('Infinity' AS DOUBLE)
      THEN VAR_POP(`m3`) * COUNT(`m3`)
    END AS `m3_m2`,
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
    COLLECT_LIST(`m3`) AS `m3_values`,
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
      `channel` AS `m0`,
      `amount` AS `m1`,
      `items` AS `m2`,
      CASE WHEN ABS(`weight`) <= 1.7976931348623157e308 THEN `weight` END AS `m3`
    FROM `events`
    WHERE
      `_event_ms` >= 1704067200000 AND NOT `customer_id` IS NULL
  ) AS `measured`
  GROUP BY
    `customer_id`,
    `tile_start_ms`
) AS `collected`
;
