"""What checks found and stored: by table, day and rule, read without Dagster and without an engine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from checks.quality.profiles_table import Document, read_findings
from millrace.errors import NotDeclared, nearest
from millrace.names import events_table, features_table
from millrace.plan import Plan, ViewPlan
from offline.tables.partition_log import quarantined_days, read_partition_log
from resources.lake.view_versions import deployed_version
from resources.settings import Settings


@dataclass(frozen=True)
class TableFindings:
    """The judged days of one table.

    Attributes:
        table: its name under the lake.
        days: judged days, ascending.
        failed: what failed, as ``Finding.document``, by day, ascending; days without are absent.
        unknown: how many rules could not be judged for want of history, over all days.
        held: days that readers do not see, with the reason.
    """

    table: str
    days: tuple[date, ...]
    failed: Mapping[date, tuple[Document, ...]]
    unknown: int
    held: Mapping[date, str]

    def as_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values, one entry per day and rule that failed."""
        return {
            "table": self.table,
            "days_judged": len(self.days),
            "days_with_findings": len(self.failed),
            "not_judged": self.unknown,
            "held": {day.isoformat(): reason for day, reason in self.held.items()},
            "findings": [
                {"day": day.isoformat(), **finding, "held": day in self.held}
                for day, findings in self.failed.items()
                for finding in findings
            ],
        }


def stored_findings(
    settings: Settings, plan: Plan, name: str | None, since: date | None = None
) -> tuple[TableFindings, ...]:
    """Return what the checks of the last builds found.

    Args:
        settings: the lake.
        plan: everything declared.
        name: a feature view, whose events count as well, or a source; None: every table.
        since: the first day wanted; None: all.

    Raises:
        NotDeclared: no view or source has this name; the nearest are named.
    """
    return tuple(_of_table(settings, table, since) for table in _tables(settings, plan, name))


def _tables(settings: Settings, plan: Plan, name: str | None) -> Sequence[str]:
    if name is not None and name not in plan.views and name not in plan.sources:
        known = [*plan.views, *plan.sources]
        raise NotDeclared(f"no feature view or source {name!r}", fix=nearest(name, known))
    views = [v for v in plan.views.values() if name in {None, v.name, v.source.name}]
    sources = [v.source.name for v in views]
    if name is not None and name in plan.sources:
        sources.append(name)
    tables = [events_table(source) for source in sources]
    return tuple(dict.fromkeys([*tables, *_feature_tables(settings, views)]))


def _feature_tables(settings: Settings, views: Sequence[ViewPlan]) -> Iterator[str]:
    for view in views:
        version = deployed_version(settings, view)
        if version is not None:
            yield features_table(view.name, version)


def _of_table(settings: Settings, table: str, since: date | None) -> TableFindings:
    found = read_findings(settings, table, since)
    failed = {
        day: tuple(one for one in findings if one["verdict"] == "failed")
        for day, findings in found.items()
    }
    held = quarantined_days(read_partition_log(settings, table))
    return TableFindings(
        table=table,
        days=tuple(found),
        failed={day: findings for day, findings in failed.items() if findings},
        unknown=sum(one["verdict"] == "unknown" for day in found.values() for one in day),
        held={day: reason for day, reason in sorted(held.items()) if since is None or day >= since},
    )
