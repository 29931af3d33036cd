"""What the kernel must know of a feature view; it pickles without the source's expressions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from millrace.aggregates import Aggregate
from millrace.plan import DerivedPlan
from millrace.types import DataType
from millrace.window import Window

if TYPE_CHECKING:
    from millrace.plan import ViewPlan


@dataclass(frozen=True)
class KernelFeature:
    """One output column.

    Attributes:
        measure: name of the aggregated column; None for a count of rows.
        default: what stands in place of every null; None: nulls stay.
    """

    name: str
    aggregate: Aggregate
    measure: str | None
    window: Window
    default: Any = None

    @property
    def type(self) -> DataType:
        """The type of the value."""
        return self.aggregate.type


@dataclass(frozen=True)
class KernelView:
    """Names and types of what goes into the kernel and comes out of it.

    Attributes:
        measures: name and type of each measure column of the events table.
        has_event_id: the events table has ``_event_id``.
        derived: what is calculated of the features, each behind its inputs.
        order: names of the columns that come out; empty: the features as they stand.
    """

    join_keys: tuple[str, ...]
    measures: tuple[tuple[str, DataType], ...]
    has_event_id: bool
    features: tuple[KernelFeature, ...]
    derived: tuple[DerivedPlan, ...] = ()
    order: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[tuple[str, DataType], ...]:
        """Name and type of each column that comes out."""
        types = {f.name: f.type for f in self.features} | {f.name: f.type for f in self.derived}
        return tuple((name, types[name]) for name in self.order or types)

    @classmethod
    def of(cls, view: "ViewPlan") -> Self:
        """Take from a plan what the kernel needs."""
        return cls(
            join_keys=view.join_keys,
            measures=tuple((m.name, m.type) for m in view.measures),
            has_event_id=view.source.event_id is not None,
            features=tuple(
                KernelFeature(
                    f.name,
                    f.aggregate,
                    f.measure.name if f.measure else None,
                    f.window,
                    f.default,
                )
                for f in view.features
            ),
            derived=view.derived,
            order=view.order,
        )
