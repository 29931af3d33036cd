"""Names outside the process: tables of the lake, topics, consumer groups. Each is spelled here alone.

Keys of the online store are bytes, and laid out by ``millrace.codec``; names of assets are Dagster's, in
``resources.dagster.asset_keys``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.plan import ViewPlan


def events_table(source: str) -> str:
    """Return the table of a source's accepted events, below the lake.

    >>> events_table("cards")
    'events/cards'
    """
    return f"events/{source}"


def dead_letters_table(source: str) -> str:
    """Return the table of a source's refused rows and records."""
    return f"dead_letters/{source}"


def duplicates_table(source: str) -> str:
    """Return the table of arrivals that were duplicates of archived events."""
    return f"duplicates/{source}"


def tiles_table(view: str, version: str) -> str:
    """Return the table of a version's partial aggregates.

    >>> tiles_table("spend", "v2")
    'tiles/spend/v2'
    """
    return f"tiles/{view}/{version}"


def features_table(view: str, version: str) -> str:
    """Return the table of a version's values as of each event."""
    return f"features/{view}/{version}"


def profiles_table(table: str) -> str:
    """Return the table of what is known of each day of a table."""
    return f"profiles/{table}"


def dead_letter_topic(topic: str) -> str:
    """Return the topic of what was refused of a source's topic."""
    return f"{topic}.dlq"


def tile_topic(view: "ViewPlan") -> str:
    """Return the topic that a view's tiles are upserted into."""
    return f"millrace.tiles.{view.name}.{view.fingerprint}"


def flink_group(view: "ViewPlan") -> str:
    """Return the consumer group under which a view's job commits its offsets."""
    return f"millrace-{view.name}-{view.fingerprint}"


def archive_group(topic: str) -> str:
    """Return the consumer group under which the archive shows how far it read a topic."""
    return f"millrace-archive-{topic}"


def archive_application(topic: str) -> str:
    """Return the prefix of the archive's application ids in the log of a Delta table."""
    return f"millrace-archive/{topic}"


WRITER_GROUP = "millrace-writer"
"""Consumer group of all writers of one stack."""
