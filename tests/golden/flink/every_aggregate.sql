SET 'pipeline.name' = 'every_aggregate-c8cc0c8e598542b9'
;
SET 'pipeline.max-parallelism' = '128'
;
SET 'pipeline.object-reuse' = 'true'
;
SET 'table.local-time-zone' = 'UTC'
;
SET 'table.exec.state.ttl' = '90305000 ms'
;
SET 'table.exec.mini-batch.enabled' = 'true'
;
SET 'table.exec.mini-batch.allow-latency' = '20 ms'
;
SET 'table.exec.mini-batch.size' = '5000'
;
SET 'state.backend.type' = 'rocksdb'
;
SET 'state.backend.rocksdb.use-bloom-filter' = 'true'
;
SET 'state.backend.rocksdb.memory.partitioned-index-filters' = 'true'
;
SET 'state.backend.rocksdb.memory.fixed-per-slot' = '128mb'
;
SET 'execution.checkpointing.incremental' = 'true'
;
SET 'execution.buffer-timeout.interval' = '5 ms'
;
SET 'execution.checkpointing.interval' = '10 s'
;
SET 'execution.checkpointing.mode' = 'EXACTLY_ONCE'
;
SET 'execution.checkpointing.timeout' = '2 min'
;
SET 'execution.checkpointing.tolerable-failed-checkpoints' = '1000'
;
CREATE TEMPORARY FUNCTION `parse_json_row` AS
'millrace.flink.ParseJsonRow'
;
CREATE TEMPORARY FUNCTION `epoch_ms` AS
'millrace.flink.EpochMs'
;
CREATE TEMPORARY FUNCTION `moments` AS
'millrace.flink.Moments'
;
CREATE TEMPORARY FUNCTION `first_edge` AS
'millrace.flink.FirstEdge'
;
CREATE TEMPORARY FUNCTION `last_edge` AS
'millrace.flink.LastEdge'
;
CREATE TEMPORARY FUNCTION `distinct_values` AS
'millrace.flink.DistinctValues'
;
CREATE TEMPORARY FUNCTION `value_counts` AS
'millrace.flink.ValueCounts'
;
CREATE TEMPORARY FUNCTION `first_values` AS
'millrace.flink.FirstValues'
;
CREATE TEMPORARY FUNCTION `last_values` AS
'millrace.flink.LastValues'
;
CREATE TEMPORARY FUNCTION `rank_registers` AS
'millrace.flink.RankRegisters'
;
CREATE TEMPORARY FUNCTION `bucket_counts` AS
'millrace.flink.BucketCounts'
;
CREATE TEMPORARY TABLE `source` (
  `_value` BYTES,
  `_ingest_ms` BIGINT,
  `_partition` INT,
  `_offset` BIGINT
)
WITH (
  'connector' = 'event-topic',
  'topic' = 'payments',
  'ordered' = 'true',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'millrace-every_aggregate-c8cc0c8e598542b9',
  'properties.fetch.max.wait.ms' = '20'
)
;
CREATE TEMPORARY TABLE `tiles` (
  `customer_id` BIGINT,
  `tile_start_ms` BIGINT,
  `rows` BIGINT,
  `last_ms` BIGINT,
  `m0_count` BIGINT,
  `m0_first` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` BIGINT, `value` STRING>,
  `m0_last` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` BIGINT, `value` STRING>,
  `m0_first_ms` BIGINT,
  `m0_distinct_2` BYTES,
  `m0_value_counts_1000` BYTES,
  `m0_first_k_3` BYTES,
  `m0_last_k_5` BYTES,
  `m0_registers_8` BYTES,
  `m1_count` BIGINT,
  `m1_sum` DECIMAL(38, 2),
  `m1_mean` DOUBLE,
  `m1_m2` DOUBLE,
  `m1_distinct_1000` BYTES,
  `m1_buckets` BYTES,
  `m2_count` BIGINT,
  `m2_sum` DECIMAL(38, 0),
  `m2_min` INT,
  `m2_value_counts_2` BYTES,
  `m2_buckets` BYTES,
  `m3_count` BIGINT,
  `m3_sum` DOUBLE,
  `m3_max` DOUBLE,
  `m3_mean` DOUBLE,
  `m3_m2` DOUBLE,
  `m3_last_k_2` BYTES,
  `m3_registers_12` BYTES,
  `m3_buckets` BYTES,
  `last_event_ms` BIGINT,
  PRIMARY KEY (`customer_id`, `tile_start_ms`) NOT ENFORCED
)
WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'millrace.tiles.every_aggregate.c8cc0c8e598542b9',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.linger.ms' = '5',
  'properties.batch.size' = '131072',
  'properties.compression.type' = 'lz4',
  'key.format' = 'json',
  'key.json.encode.decimal-as-plain-number' = 'true',
  'value.format' = 'json',
  'value.json.encode.decimal-as-plain-number' = 'true'
)
;
CREATE TEMPORARY VIEW `accepted` AS
SELECT
  `payment_id`,
  TO_TIMESTAMP_LTZ(`paid_at`, 3) AS `paid_at`,
  `customer_id`,
  `amount`,
  `items`,
  `weight`,
  `channel`,
  LEAST(`paid_at`, `_ingest_ms`) AS `_event_ms`,
  `_ingest_ms`,
  `_partition`,
  `_offset`
FROM `source`
CROSS JOIN LATERAL TABLE(
  PARSE_JSON_ROW(
    `_value`,
    '`payment_id` BIGINT, `paid_at` TIMESTAMP_LTZ(3) NOT NULL, `customer_id` BIGINT, `amount` DECIMAL(12, 2), `items` INT, `weight` DOUBLE, `channel` STRING'
  )
) AS `parsed`(`payment_id`, `paid_at`, `customer_id`, `amount`, `items`, `weight`, `channel`, `_reason`)
WHERE
  `_reason` IS NULL
  AND `paid_at` <= `_ingest_ms` + CAST(5000 AS BIGINT)
  AND `paid_at` >= `_ingest_ms` - CAST(3600000 AS BIGINT)
;
CREATE TEMPORARY TABLE `deduplicated`
WITH (
  'connector' = 'first-copies',
  'table' = 'accepted',
  'id' = 'payment_id',
  'ingest-ms' = '_ingest_ms',
  'partition' = '_partition',
  'offset' = '_offset',
  'horizon' = '86400000 ms',
  'kept' = '172800000 ms'
)
;
CREATE TEMPORARY VIEW `measured` AS
SELECT
  `customer_id`,
  `_event_ms` - MOD(`_event_ms`, 300000) AS `tile_start_ms`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  `channel` AS `m0`,
  `amount` AS `m1`,
  `items` AS `m2`,
  CASE WHEN ABS(`weight`) <= 1.7976931348623157e308 THEN `weight` END AS `m3`
FROM `deduplicated`
WHERE
  `_event_ms` >= CAST(1704067200000 AS BIGINT) AND NOT `customer_id` IS NULL
;
INSERT INTO `tiles`
SELECT
  `customer_id`,
  `tile_start_ms`,
  `rows`,
  `last_ms`,
  `m0_count`,
  `m0_first`,
  `m0_last`,
  `m0_first_ms`,
  `m0_distinct_2`,
  `m0_value_counts_1000`,
  `m0_first_k_3`,
  `m0_last_k_5`,
  `m0_registers_8`,
  `m1_count`,
  `m1_sum`,
  `m1_moments`.`mean` AS `m1_mean`,
  `m1_moments`.`m2` AS `m1_m2`,
  `m1_distinct_1000`,
  `m1_buckets`,
  `m2_count`,
  `m2_sum`,
  `m2_min`,
  `m2_value_counts_2`,
  `m2_buckets`,
  `m3_count`,
  CASE WHEN ABS(`m3_sum`) <= CAST(1.7976931348623157E308 AS DOUBLE) THEN `m3_sum` END AS `m3_sum`,
  `m3_max`,
  `m3_moments`.`mean` AS `m3_mean`,
  `m3_moments`.`m2` AS `m3_m2`,
  `m3_last_k_2`,
  `m3_registers_12`,
  `m3_buckets`,
  `last_event_ms`
FROM (
  SELECT /*+ STATE_TTL('measured' = '90305000 ms') */
    `customer_id`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    MAX(`_event_ms`) AS `last_ms`,
    COUNT(`m0`) AS `m0_count`,
    FIRST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m0`) AS `m0_first`,
    LAST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m0`) AS `m0_last`,
    MIN(CASE WHEN NOT `m0` IS NULL THEN `_event_ms` END) AS `m0_first_ms`,
    DISTINCT_VALUES(CAST(`m0` AS STRING), 2) AS `m0_distinct_2`,
    VALUE_COUNTS(CAST(`m0` AS STRING), 1000) AS `m0_value_counts_1000`,
    FIRST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m0` AS STRING), 3) AS `m0_first_k_3`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m0` AS STRING), 5) AS `m0_last_k_5`,
    RANK_REGISTERS(CAST(`m0` AS STRING), 8) AS `m0_registers_8`,
    COUNT(`m1`) AS `m1_count`,
    SUM(`m1`) AS `m1_sum`,
    MOMENTS(CAST(`m1` AS DOUBLE)) AS `m1_moments`,
    DISTINCT_VALUES(CAST(`m1` AS DECIMAL(12, 2)), 1000) AS `m1_distinct_1000`,
    BUCKET_COUNTS(CAST(`m1` AS DECIMAL(12, 2))) AS `m1_buckets`,
    COUNT(`m2`) AS `m2_count`,
    SUM(CAST(`m2` AS DECIMAL(28, 0))) AS `m2_sum`,
    MIN(`m2`) AS `m2_min`,
    VALUE_COUNTS(CAST(`m2` AS INT), 2) AS `m2_value_counts_2`,
    BUCKET_COUNTS(CAST(`m2` AS INT)) AS `m2_buckets`,
    COUNT(`m3`) AS `m3_count`,
    SUM(`m3`) AS `m3_sum`,
    MAX(`m3`) AS `m3_max`,
    MOMENTS(`m3`) AS `m3_moments`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m3` AS DOUBLE), 2) AS `m3_last_k_2`,
    RANK_REGISTERS(CAST(`m3` AS DOUBLE), 12) AS `m3_registers_12`,
    BUCKET_COUNTS(CAST(`m3` AS DOUBLE)) AS `m3_buckets`,
    MAX(`_event_ms`) AS `last_event_ms`
  FROM `measured`
  GROUP BY
    `customer_id`,
    `tile_start_ms`
) AS `aggregated`
;
