"""The parts of the stack, in the order in which they are shown and started."""

from stack.dagster import dagster_part
from stack.flink import flink_part
from stack.kafka import kafka_part
from stack.parts import Part
from stack.python_parts import archive_part, server_part, writer_part
from stack.spark import spark_part
from stack.store import store_part


def all_parts() -> tuple[Part, ...]:
    """Return every part there is."""
    return (
        kafka_part(),
        flink_part(),
        store_part(),
        writer_part(),
        archive_part(),
        spark_part(),
        server_part(),
        dagster_part(),
    )
