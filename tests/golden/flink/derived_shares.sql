SET 'pipeline.name' = 'derived_shares-398e6330aaee95a7'
;
SET 'pipeline.max-parallelism' = '128'
;
SET 'pipeline.object-reuse' = 'true'
;
SET 'table.local-time-zone' = 'UTC'
;
SET 'table.exec.state.ttl' = '259505000 ms'
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
CREATE TEMPORARY FUNCTION `last_edge` AS
'millrace.flink.LastEdge'
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
  'properties.group.id' = 'millrace-derived_shares-398e6330aaee95a7',
  'properties.fetch.max.wait.ms' = '20'
)
;
CREATE TEMPORARY TABLE `tiles` (
  `customer_id` BIGINT,
  `tile_start_ms` BIGINT,
  `rows` BIGINT,
  `last_ms` BIGINT,
  `m0_count` BIGINT,
  `m0_sum` DECIMAL(38, 2),
  `m0_max` DECIMAL(12, 2),
  `m1_last` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `event_id` STRING, `value` BIGINT>,
  `last_event_ms` BIGINT,
  PRIMARY KEY (`customer_id`, `tile_start_ms`) NOT ENFORCED
)
WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'millrace.tiles.derived_shares.398e6330aaee95a7',
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
  LEAST(`paid_at`, `_ingest_ms`) AS `_event_ms`,
  `_ingest_ms`,
  `_partition`,
  `_offset`
FROM `source`
CROSS JOIN LATERAL TABLE(
  PARSE_JSON_ROW(
    `_value`,
    '`payment_id` STRING, `paid_at` TIMESTAMP_LTZ(3) NOT NULL, `customer_id` BIGINT, `terminal_code` STRING, `amount` DECIMAL(12, 2), `is_fraud` BOOLEAN',
    'payment_id, paid_at, customer_id, amount'
  )
) AS `parsed`(`payment_id`, `paid_at`, `customer_id`, `amount`, `_reason`)
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
  `_event_ms` - MOD(`_event_ms`, 300000) AS `tile_start_ms`,
  `_event_ms`,
  `_ingest_ms`,
  `payment_id` AS `_event_id`,
  `amount` AS `m0`,
  EPOCH_MS(`paid_at`) AS `m1`
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
  `m0_sum`,
  `m0_max`,
  `m1_last`,
  `last_event_ms`
FROM (
  SELECT /*+ STATE_TTL('measured' = '259505000 ms') */
    `customer_id`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    MAX(`_event_ms`) AS `last_ms`,
    COUNT(`m0`) AS `m0_count`,
    SUM(`m0`) AS `m0_sum`,
    MAX(`m0`) AS `m0_max`,
    LAST_EDGE(`_event_ms`, `_ingest_ms`, `_event_id`, `m1`) AS `m1_last`,
    MAX(`_event_ms`) AS `last_event_ms`
  FROM `measured`
  GROUP BY
    `customer_id`,
    `tile_start_ms`
) AS `aggregated`
;
