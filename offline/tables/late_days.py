"""Days of events that hold more, or fewer, rows than when they were last built.

The archive appends an event whenever it arrives. When it was behind, or a day was built before it
was closed, rows come to a day after tiles and features were made of it. Delta's log and the
partition log both count rows by day, so the two tell which days, and nothing is read.

Building such a day restates it wholly. Later days need nothing: their values are as of instants
before the late arrival, and an event is seen from its arrival on.
"""

from dataclasses import dataclass
from datetime import date

from millrace.names import events_table
from millrace.plan import SourcePlan
from offline.tables.partition_log import built_days, read_partition_log
from resources.lake.delta import open_table, partition_stats
from resources.settings import Settings


@dataclass(frozen=True)
class LateDays:
    """What has come to the days of one source since they were built.

    Attributes:
        days: the days, newest first.
        version: Delta version of the events they were counted in; -1 if there are none.
    """

    days: tuple[date, ...]
    version: int


def late_days(settings: Settings, source: SourcePlan, newest: date) -> LateDays:
    """Find the built days up to ``newest`` whose events have changed since.

    Days that were never built, that failed, or that were built by another declaration are nobody's
    late data and not among them.
    """
    table = events_table(source.name)
    opened = open_table(settings, table)
    if opened is None:
        return LateDays((), -1)
    stats = partition_stats(settings, table)
    log = read_partition_log(settings, table)
    changed = [
        day
        for day in built_days(log, source.fingerprint)
        if day <= newest and log[day].rows != (stats[day].rows if day in stats else 0)
    ]
    return LateDays(tuple(sorted(changed, reverse=True)), int(opened.version()))
