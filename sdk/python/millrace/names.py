"""Names outside the process: of topics and consumer groups. Each is spelled here and nowhere else."""

from millrace.plan import ViewPlan


def tile_topic(view: ViewPlan) -> str:
    """Return the topic that a view's tiles are upserted into."""
    return f"millrace.tiles.{view.name}.{view.fingerprint}"


def flink_group(view: ViewPlan) -> str:
    """Return the consumer group under which a view's job commits its offsets."""
    return f"millrace-{view.name}-{view.fingerprint}"
