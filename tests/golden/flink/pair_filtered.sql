SET 'pipeline.name' = 'pair_filtered-5f2ab94f82f7c2cb'
;
SET 'pipeline.max-parallelism' = '128'
;
SET 'pipeline.object-reuse' = 'true'
;
SET 'table.local-time-zone' = 'UTC'
;
SET 'table.exec.state.ttl' = '259206000 ms'
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
CREATE TEMPORARY TABLE `source` (
  `_value` BYTES,
  `_ingest_ms` BIGINT,
  `_partition` INT,
  `_offset` BIGINT
)
WITH (
  'connector' = 'event-topic',
  'topic' = 'card_payments',
  'ordered' = 'true',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'millrace-pair_filtered-5f2ab94f82f7c2cb',
  'properties.fetch.max.wait.ms' = '20'
)
;
CREATE TEMPORARY TABLE `tiles` (
  `customer_id` BIGINT,
  `terminal_code` STRING,
  `tile_start_ms` BIGINT,
  `rows` BIGINT,
  `m0_count` BIGINT,
  `m0_sum` DECIMAL(38, 0),
  `m1_count` BIGINT,
  `m1_sum` DECIMAL(38, 0),
  `last_event_ms` BIGINT,
  PRIMARY KEY (`customer_id`, `terminal_code`, `tile_start_ms`) NOT ENFORCED
)
WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'millrace.tiles.pair_filtered.5f2ab94f82f7c2cb',
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
  `terminal_code`,
  `amount`,
  `is_fraud`,
  LEAST(`paid_at`, `_ingest_ms`) AS `_event_ms`,
  `_ingest_ms`,
  `_partition`,
  `_offset`
FROM `source`
CROSS JOIN LATERAL TABLE(
  PARSE_JSON_ROW(
    `_value`,
    '`payment_id` STRING, `paid_at` TIMESTAMP_LTZ(3) NOT NULL, `customer_id` BIGINT, `terminal_code` STRING, `amount` DECIMAL(12, 2), `is_fraud` BOOLEAN'
  )
) AS `parsed`(`payment_id`, `paid_at`, `customer_id`, `terminal_code`, `amount`, `is_fraud`, `_reason`)
WHERE
  `_reason` IS NULL
  AND `paid_at` <= `_ingest_ms` + CAST(5000 AS BIGINT)
  AND `paid_at` >= `_ingest_ms` - CAST(172800000 AS BIGINT)
;
CREATE TEMPORARY TABLE `deduplicated`
WITH (
  'connector' = 'first-copies',
  'table' = 'accepted',
  'id' = 'payment_id',
  'ingest-ms' = '_ingest_ms',
  'partition' = '_partition',
  'offset' = '_offset',
  'horizon' = '21600000 ms',
  'kept' = '108000000 ms'
)
;
CREATE TEMPORARY VIEW `measured` AS
SELECT
  `customer_id`,
  `terminal_code`,
  `_event_ms` - MOD(`_event_ms`, 1000) AS `tile_start_ms`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  CASE WHEN `amount` > 100 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS `m0`,
  CASE WHEN `is_fraud` THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS `m1`
FROM `deduplicated`
WHERE
  `_event_ms` >= CAST(1704067200000 AS BIGINT)
  AND NOT `customer_id` IS NULL
  AND NOT `terminal_code` IS NULL
  AND (
    `amount` > 0 OR `is_fraud`
  )
;
INSERT INTO `tiles`
SELECT
  `customer_id`,
  `terminal_code`,
  `tile_start_ms`,
  `rows`,
  `m0_count`,
  `m0_sum`,
  `m1_count`,
  `m1_sum`,
  `last_event_ms`
FROM (
  SELECT /*+ STATE_TTL('measured' = '259206000 ms') */
    `customer_id`,
    `terminal_code`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    COUNT(`m0`) AS `m0_count`,
    SUM(CAST(`m0` AS DECIMAL(28, 0))) AS `m0_sum`,
    COUNT(`m1`) AS `m1_count`,
    SUM(CAST(`m1` AS DECIMAL(28, 0))) AS `m1_sum`,
    MAX(`_event_ms`) AS `last_event_ms`
  FROM `measured`
  GROUP BY
    `customer_id`,
    `terminal_code`,
    `tile_start_ms`
) AS `aggregated`
;
