SET 'pipeline.name' = 'shopper_lifetime-dd8cc21b591ea283'
;
SET 'pipeline.max-parallelism' = '128'
;
SET 'pipeline.object-reuse' = 'true'
;
SET 'table.local-time-zone' = 'UTC'
;
SET 'table.exec.state.ttl' = '259205000 ms'
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
CREATE TEMPORARY FUNCTION `first_edge` AS
'millrace.flink.FirstEdge'
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
  'topic' = 'purchases',
  'ordered' = 'false',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'millrace-shopper_lifetime-dd8cc21b591ea283',
  'properties.fetch.max.wait.ms' = '20'
)
;
CREATE TEMPORARY TABLE `tiles` (
  `shopper` STRING,
  `tile_start_ms` BIGINT,
  `rows` BIGINT,
  `m0_count` BIGINT,
  `m0_sum` DOUBLE,
  `m0_last` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `value` DOUBLE>,
  `m1_first` ROW<`event_ms` BIGINT, `ingest_ms` BIGINT, `value` STRING>,
  `last_event_ms` BIGINT,
  PRIMARY KEY (`shopper`, `tile_start_ms`) NOT ENFORCED
)
WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'millrace.tiles.shopper_lifetime.dd8cc21b591ea283',
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
  TO_TIMESTAMP_LTZ(`bought_at`, 3) AS `bought_at`,
  `shopper`,
  `price`,
  `sku`,
  LEAST(`bought_at`, `_ingest_ms`) AS `_event_ms`,
  `_ingest_ms`,
  `_partition`,
  `_offset`
FROM `source`
CROSS JOIN LATERAL TABLE(
  PARSE_JSON_ROW(
    `_value`,
    '`bought_at` TIMESTAMP_LTZ(3) NOT NULL, `shopper` STRING, `price` DOUBLE, `sku` STRING'
  )
) AS `parsed`(`bought_at`, `shopper`, `price`, `sku`, `_reason`)
WHERE
  `_reason` IS NULL
  AND `bought_at` <= `_ingest_ms` + CAST(5000 AS BIGINT)
  AND `bought_at` >= `_ingest_ms` - CAST(86400000 AS BIGINT)
;
CREATE TEMPORARY VIEW `measured` AS
SELECT
  `shopper`,
  `_event_ms` - MOD(MOD(`_event_ms`, 86400000) + 86400000, 86400000) AS `tile_start_ms`,
  `_event_ms`,
  `_ingest_ms`,
  CASE WHEN ABS(`price`) <= 1.7976931348623157e308 THEN `price` END AS `m0`,
  `sku` AS `m1`
FROM `accepted`
WHERE
  `_event_ms` >= CAST(-86400000 AS BIGINT) AND NOT `shopper` IS NULL
;
INSERT INTO `tiles`
SELECT
  `shopper`,
  `tile_start_ms`,
  `rows`,
  `m0_count`,
  CASE WHEN ABS(`m0_sum`) <= CAST(1.7976931348623157E308 AS DOUBLE) THEN `m0_sum` END AS `m0_sum`,
  `m0_last`,
  `m1_first`,
  `last_event_ms`
FROM (
  SELECT /*+ STATE_TTL('measured' = '259205000 ms') */
    `shopper`,
    `tile_start_ms`,
    COUNT(*) AS `rows`,
    COUNT(`m0`) AS `m0_count`,
    SUM(`m0`) AS `m0_sum`,
    LAST_EDGE(`_event_ms`, `_ingest_ms`, `m0`) AS `m0_last`,
    FIRST_EDGE(`_event_ms`, `_ingest_ms`, `m1`) AS `m1_first`,
    MAX(`_event_ms`) AS `last_event_ms`
  FROM `measured`
  GROUP BY
    `shopper`,
    `tile_start_ms`
) AS `aggregated`
;
