"""What the archive has made of each topic, for people and checks."""

from typing import Any

from millrace.errors import EngineError
from millrace.names import events_table
from millrace.plan import Plan, SourcePlan
from resources.endpoints import kafka_bootstrap
from resources.kafka.client import end_offsets
from resources.lake.delta import open_table
from resources.lake.offset_ledger import OffsetLedger, archived_sources, read_ledger
from resources.settings import Settings


def archive_status(settings: Settings, plan: Plan) -> dict[str, dict[str, Any]]:
    """Return, for each source with a stream, the counts of its books and its lag.

    ``{"events", "duplicates", "dead_letters": {"malformed", "schema", "late", "future"},
    "lag_events"}``. Counts are exact as of the last commit, and cost an open of the table's log.
    ``lag_events`` is what the topic holds beyond it; None while Kafka does not answer, and for a
    topic that does not exist yet.
    """
    return {name: _status(settings, source) for name, source in archived_sources(plan).items()}


def _status(settings: Settings, source: SourcePlan) -> dict[str, Any]:
    topic = source.stream.topic if source.stream else ""
    books = read_ledger(open_table(settings, events_table(source.name)), topic)
    return {
        "events": books.counts["events"],
        "duplicates": books.counts["duplicates"],
        "dead_letters": books.dead_letters,
        "lag_events": _lag(settings, books),
    }


def _lag(settings: Settings, books: OffsetLedger) -> int | None:
    try:
        ends = end_offsets(kafka_bootstrap(settings), books.topic)
    except EngineError:
        return None
    return sum(max(0, end - books.next.get(p, 0)) for p, end in ends.items())
