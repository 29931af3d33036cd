"""The online API: loads published serving plans; knows no Dagster, Spark, Flink or Kafka."""
