"""The real tables as days, their profiles and the rules that every source has by default."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from millrace.compile.checks import Rule, source_rules
from millrace.load.yaml import read_yaml
from millrace.plan import Plan, SourcePlan
from millrace.quality.partial import Partials, TableShape, source_shape
from millrace.quality.profile import DayProfile
from millrace.resolve import resolve

VIEWS = Path(__file__).parents[2] / "feature_assets"
FILES = {
    "cards": "examples/cards.yaml",
    "retail": "examples/retail.yaml",
    "flights": "views/flights.yaml",
}
"""Declarations, by the name that the study knows them by."""


@dataclass(frozen=True)
class Dataset:
    """One table, cut into UTC days.

    Attributes:
        days: rows of each day that has any, in order of event time.
        null_keys: events of each day that have no key, and so are not among ``days``.
    """

    name: str
    event_time: str
    shape: TableShape
    rules: tuple[Rule, ...]
    days: Mapping[date, pa.Table]
    null_keys: Mapping[date, int] = field(default_factory=dict)

    @property
    def all_days(self) -> list[date]:
        """Every day from the first to the last, those without rows too."""
        first, last = min(self.days), max(self.days)
        return [first + timedelta(n) for n in range((last - first).days + 1)]

    def profile(self, day: date, table: pa.Table | None) -> DayProfile:
        """Profile rows as those of one day, whatever their event times say."""
        partials = Partials(self.shape)
        if table is not None and table.num_rows:
            partials.add(table)
        found = partials.profiles([day])
        return next(p for p in found if p.day == day)

    def profiles(self) -> list[DayProfile]:
        """Profile every day."""
        partials = Partials(self.shape)
        for table in self.days.values():
            partials.add(table)
        # These files hold no event that would be refused.
        counts = {
            d: {"dead_letters": 0, "null_keys": self.null_keys.get(d, 0)} for d in self.all_days
        }
        return partials.profiles(self.all_days, counts)


def read_plan(example: str) -> Plan:
    """Resolve the declarations of an example."""
    specs, faults = read_yaml((VIEWS / FILES[example]).read_text("utf-8"), example)
    if faults:
        raise SystemExit("\n".join(map(str, faults)))
    return resolve(specs)


def read_table(data: Path, source: SourcePlan) -> pa.Table:
    """Read the raw rows of a source in order of event time; those without one are left out."""
    table = pq.read_table(data / f"{source.name}.parquet")
    return table.filter(pc.is_valid(table[source.event_time])).sort_by(source.event_time)


def read_dataset(data: Path, example: str) -> Dataset:
    """Read the source of an example (``cards``, ``retail``, ``flights``) with its default rules."""
    plan = read_plan(example)
    source = next(iter(plan.sources.values()))
    shape = replace(source_shape(source), event_time=source.event_time)
    rules = source_rules(source, plan.views_of(source.name))
    days = split_by_day(read_table(data, source), source.event_time)
    return Dataset(source.name, source.event_time, shape, rules, days)


def split_by_day(table: pa.Table, event_time: str) -> dict[date, pa.Table]:
    """Return the rows of each UTC day; the table must be in order of event time."""
    numbers = pc.cast(pc.cast(table[event_time], pa.date32()), pa.int32()).to_numpy()
    found, starts = np.unique(numbers, return_index=True)
    ends: list[Any] = [*starts[1:].tolist(), len(numbers)]
    return {
        date(1970, 1, 1) + timedelta(int(n)): table.slice(start, end - start)
        for n, start, end in zip(found, starts.tolist(), ends, strict=True)
    }
