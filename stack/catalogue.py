"""The parts of the stack, in the order in which they are shown and started."""

from stack.dagster import dagster_part
from stack.parts import Part
from stack.spark import spark_part


def all_parts() -> tuple[Part, ...]:
    """Return every part there is."""
    return (spark_part(), dagster_part())
