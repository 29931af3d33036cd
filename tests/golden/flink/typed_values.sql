SET 'pipeline.name' = 'typed_values-28cd0c9e393bf096'
;
SET 'pipeline.max-parallelism' = '128'
;
SET 'pipeline.object-reuse' = 'true'
;
SET 'table.local-time-zone' = 'UTC'
;
SET 'table.exec.state.ttl' = '93605000 ms'
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
CREATE TEMPORARY FUNCTION `vector_sums` AS
'millrace.flink.VectorSums'
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
  'topic' = 'readings',
  'ordered' = 'true',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'millrace-typed_values-28cd0c9e393bf096',
  'properties.fetch.max.wait.ms' = '20'
)
;
CREATE TEMPORARY TABLE `tiles` (
  `sensor` INT,
  `tile_start_ms` BIGINT,
  `rows` BIGINT,
  `m0_min` DATE,
  `m0_distinct_1000` BYTES,
  `m0_value_counts_1000` BYTES,
  `m0_last_k_3` BYTES,
  `m0_registers_12` BYTES,
  `m1_max` BIGINT,
  `m1_last` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` INT, `value` BIGINT>,
  `m1_distinct_1000` BYTES,
  `m1_value_counts_2` BYTES,
  `m1_last_k_3` BYTES,
  `m1_registers_12` BYTES,
  `m2_first` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` INT, `value` BOOLEAN>,
  `m2_distinct_1` BYTES,
  `m2_value_counts_1000` BYTES,
  `m2_last_k_3` BYTES,
  `m2_registers_14` BYTES,
  `m3_last` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` INT, `value` BYTES>,
  `m3_distinct_3` BYTES,
  `m3_value_counts_4` BYTES,
  `m3_first_k_2` BYTES,
  `m3_last_k_3` BYTES,
  `m3_registers_8` BYTES,
  `m4_count` BIGINT,
  `m4_sum` DECIMAL(38, 4),
  `m4_distinct_1000` BYTES,
  `m4_value_counts_1000` BYTES,
  `m4_last_k_3` BYTES,
  `m4_registers_12` BYTES,
  `m4_buckets` BYTES,
  `m5_distinct_1000` BYTES,
  `m5_buckets` BYTES,
  `m6_count` BIGINT,
  `m6_sums` ARRAY<DOUBLE>,
  `m6_first` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` INT, `value` ARRAY<FLOAT>>,
  `m6_last` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` INT, `value` ARRAY<FLOAT>>,
  `last_event_ms` BIGINT,
  PRIMARY KEY (`sensor`, `tile_start_ms`) NOT ENFORCED
)
WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'millrace.tiles.typed_values.28cd0c9e393bf096',
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
  `reading_id`,
  TO_TIMESTAMP_LTZ(`read_at`, 3) AS `read_at`,
  `sensor`,
  `due`,
  TO_TIMESTAMP_LTZ(`serviced_at`, 3) AS `serviced_at`,
  `is_open`,
  `payload`,
  `total`,
  `taste`,
  LEAST(`read_at`, `_ingest_ms`) AS `_event_ms`,
  `_ingest_ms`,
  `_partition`,
  `_offset`
FROM `source`
CROSS JOIN LATERAL TABLE(
  PARSE_JSON_ROW(
    `_value`,
    '`reading_id` INT, `read_at` TIMESTAMP_LTZ(3) NOT NULL, `sensor` INT, `due` DATE, `serviced_at` TIMESTAMP_LTZ(3), `is_open` BOOLEAN, `payload` BYTES, `total` DECIMAL(38, 4), `taste` BINARY(12)'
  )
) AS `parsed`(`reading_id`, `read_at`, `sensor`, `due`, `serviced_at`, `is_open`, `payload`, `total`, `taste`, `_reason`)
WHERE
  `_reason` IS NULL
  AND `read_at` <= `_ingest_ms` + CAST(5000 AS BIGINT)
  AND `read_at` >= `_ingest_ms` - CAST(3600000 AS BIGINT)
;
CREATE TEMPORARY TABLE `deduplicated`
WITH (
  'connector' = 'first-copies',
  'table' = 'accepted',
  'id' = 'reading_id',
  'ingest-ms' = '_ingest_ms',
  'partition' = '_partition',
  'offset' = '_offset',
  'horizon' = '86400000 ms',
  'kept' = '172800000 ms'
)
;
CREATE TEMPORARY VIEW `measured` AS
SELECT
  `sensor`,
  `_event_ms` - MOD(`_event_ms`, 3600000) AS `tile_start_ms`,
  `_event_ms`,
  `_ingest_ms`,
  `reading_id` AS `_event_id`,
  `due` AS `m0`,
  EPOCH_MS(`serviced_at`) AS `m1`,
  `is_open` AS `m2`,
  `payload` AS `m3`,
  `total` AS `m4`,
  CASE WHEN `total` > 0 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS `m5`,
  `taste` AS `m6`
FROM `deduplicated`
WHERE
  `_event_ms` >= CAST(1709164800000 AS BIGINT) AND NOT `sensor` IS NULL
;
INSERT INTO `tiles`
SELECT
  `sensor`,
  `tile_start_ms`,
  `rows`,
  `m0_min`,
  `m0_distinct_1000`,
  `m0_value_counts_1000`,
  `m0_last_k_3`,
  `m0_registers_12`,
  `m1_max`,
  `m1_last`,
  `m1_distinct_1000`,
  `m1_value_counts_2`,
  `m1_last_k_3`,
  `m1_registers_12`,
  `m2_first`,
  `m2_distinct_1`,
  `m2_value_counts_1000`,
  `m2_last_k_3`,
  `m2_registers_14`,
  `m3_last`,
  `m3_distinct_3`,
  `m3_value_counts_4`,
  `m3_first_k_2`,
  `m3_last_k_3`,
  `m3_registers_8`,
  `m4_count`,
  `m4_sum`,
  `m4_distinct_1000`,
  `m4_value_counts_1000`,
  `m4_last_k_3`,
  `m4_registers_12`,
  `m4_buckets`,
  `m5_distinct_1000`,
  `m5_buckets`,
  `m6_count`,
  `m6_sums`,
  `m6_first`,
  `m6_last`,
  `last_event_ms`
FROM (
  SELECT /*+ STATE_TTL('measured' = '93605000 ms') */
    `sensor`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    MIN(`m0`) AS `m0_min`,
    DISTINCT_VALUES(CAST(`m0` AS DATE), 1000) AS `m0_distinct_1000`,
    VALUE_COUNTS(CAST(`m0` AS DATE), 1000) AS `m0_value_counts_1000`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m0` AS DATE), 3) AS `m0_last_k_3`,
    RANK_REGISTERS(CAST(`m0` AS DATE), 12) AS `m0_registers_12`,
    MAX(`m1`) AS `m1_max`,
    LAST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m1`) AS `m1_last`,
    DISTINCT_VALUES(CAST(`m1` AS BIGINT), 1000) AS `m1_distinct_1000`,
    VALUE_COUNTS(CAST(`m1` AS BIGINT), 2) AS `m1_value_counts_2`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m1` AS BIGINT), 3) AS `m1_last_k_3`,
    RANK_REGISTERS(CAST(`m1` AS BIGINT), 12) AS `m1_registers_12`,
    FIRST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m2`) AS `m2_first`,
    DISTINCT_VALUES(CAST(`m2` AS BOOLEAN), 1) AS `m2_distinct_1`,
    VALUE_COUNTS(CAST(`m2` AS BOOLEAN), 1000) AS `m2_value_counts_1000`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m2` AS BOOLEAN), 3) AS `m2_last_k_3`,
    RANK_REGISTERS(CAST(`m2` AS BOOLEAN), 14) AS `m2_registers_14`,
    LAST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m3`) AS `m3_last`,
    DISTINCT_VALUES(CAST(`m3` AS BYTES), 3) AS `m3_distinct_3`,
    VALUE_COUNTS(CAST(`m3` AS BYTES), 4) AS `m3_value_counts_4`,
    FIRST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m3` AS BYTES), 2) AS `m3_first_k_2`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m3` AS BYTES), 3) AS `m3_last_k_3`,
    RANK_REGISTERS(CAST(`m3` AS BYTES), 8) AS `m3_registers_8`,
    COUNT(`m4`) AS `m4_count`,
    SUM(`m4`) AS `m4_sum`,
    DISTINCT_VALUES(CAST(`m4` AS DECIMAL(38, 4)), 1000) AS `m4_distinct_1000`,
    VALUE_COUNTS(CAST(`m4` AS DECIMAL(38, 4)), 1000) AS `m4_value_counts_1000`,
    LAST_VALUES(`_event_ms`, `_ingest_ms`, `_event_id`, CAST(`m4` AS DECIMAL(38, 4)), 3) AS `m4_last_k_3`,
    RANK_REGISTERS(CAST(`m4` AS DECIMAL(38, 4)), 12) AS `m4_registers_12`,
    BUCKET_COUNTS(CAST(`m4` AS DECIMAL(38, 4))) AS `m4_buckets`,
    DISTINCT_VALUES(CAST(`m5` AS BIGINT), 1000) AS `m5_distinct_1000`,
    BUCKET_COUNTS(CAST(`m5` AS BIGINT)) AS `m5_buckets`,
    COUNT(`m6`) AS `m6_count`,
    VECTOR_SUMS(`m6`) AS `m6_sums`,
    FIRST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m6`) AS `m6_first`,
    LAST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m6`) AS `m6_last`,
    MAX(`_event_ms`) AS `last_event_ms`
  FROM `measured`
  GROUP BY
    `sensor`,
    `tile_start_ms`
) AS `aggregated`
;
