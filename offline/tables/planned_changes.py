"""What building a view as it is declared now would change in the lake, read from its logs alone."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from millrace.days import Days, day_count
from millrace.errors import PlanError
from millrace.names import events_table, features_table
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.partition_log import read_partition_log
from offline.tables.source_changes import find_change, refuse_what_cannot_be
from resources.lake.view_versions import built_versions, deployed_version
from resources.settings import Settings


@dataclass(frozen=True)
class PlannedChange:
    """What is there of a view and its source, against what is declared.

    Attributes:
        version: the version of what is declared; None if it was never built.
        former: the newest version there is of another definition; None without any.
        columns: what becomes of the columns of ``events/<source>``, one line each.
        refused: why that cannot be, with the ways out; None if it can.
        event_days: days of events that another declaration built, ascending: built again.
        view_days: days that the former version has and the declared one has not, ascending.
    """

    view: str
    source: str
    version: str | None
    former: str | None
    columns: tuple[str, ...]
    refused: PlanError | None
    event_days: tuple[date, ...]
    view_days: tuple[date, ...]

    @property
    def command(self) -> str | None:
        """Return the command that builds what is not as declared; None if all is."""
        days = [*self.event_days, *self.view_days]
        if not days:
            return None
        span = Days.covering(days)
        return f"millrace backfill {self.view} --start {span.start} --end {span.end}"

    def lines(self) -> list[str]:
        """Return what would change, in words; nothing where nothing does."""
        found = [f"events/{self.source}: {line}" for line in self.columns]
        if self.event_days:
            found.append(
                f"events/{self.source}: {day_count(self.event_days)} built from another declaration, "
                "to be built again"
            )
        if self.view_days:
            found.append(
                f"{self.former} is of another definition and stays: {day_count(self.view_days)} to be "
                f"built of {self.version or 'a new version'}"
            )
        return [*found, self.command] if self.command else found

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "columns": list(self.columns),
            "refused": None if self.refused is None else str(self.refused),
            "event_days": [day.isoformat() for day in self.event_days],
            "view_days": [day.isoformat() for day in self.view_days],
            "former_version": self.former,
            "command": self.command,
        }


def planned_change(settings: Settings, view: ViewPlan) -> PlannedChange:
    """Compare a view and its source, as declared, with what the lake has of them."""
    source = view.source
    change = find_change(settings, source)
    refused, columns = None, change.lines()
    try:
        undecided = refuse_what_cannot_be(settings, source, change)
        columns += [
            f"{was.name}: each stored value is tried when it is built" for was, _ in undecided
        ]
    except PlanError as error:
        refused = error
    events = read_partition_log(settings, events_table(source.name))
    version = deployed_version(settings, view)
    others = [v for v in built_versions(settings, view.name) if v != version]
    former = others[-1] if others else None
    missing: set[date] = set()
    if former is not None:
        built = read_partition_log(settings, features_table(view.name, version)) if version else {}
        missing = read_partition_log(settings, features_table(view.name, former)).keys() - built
    roles = []
    if change.stands is not None and change.stands.event_id != source.event_id:
        former_id = change.stands.event_id
        if former_id is None or change.renamed(former_id) != source.event_id:
            roles.append(
                f"event_id becomes {source.event_id or 'none'}, it was {former_id or 'none'}: "
                "archived events keep what was said of them"
            )
    return PlannedChange(
        view=view.name,
        source=source.name,
        version=version,
        former=former,
        columns=(*columns, *roles),
        refused=refused,
        event_days=tuple(
            sorted(day for day, s in events.items() if s.fingerprint != source.fingerprint)
        ),
        view_days=tuple(sorted(day for day in missing if day >= view.start)),
    )


def refuse_backfill(settings: Settings, source: SourcePlan, days: Days) -> None:
    """Refuse a backfill that would lose values of days it does not build; see ``plan``.

    Raises:
        PlanError: with the ways out.
    """
    change = find_change(settings, source)
    whole = [day for day in days if day not in days.parts]
    refuse_what_cannot_be(settings, source, change, rebuilt=frozenset(whole))
