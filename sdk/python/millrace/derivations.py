"""Features derived of others: ``derived("fraud_sum_7d / NULLIF(tx_count_7d, 0)").named("fraud_rate")``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from millrace import spec
from millrace.calls import Steps, builder, here, literal_text, text
from millrace.errors import SpecError
from millrace.spec import Location

__all__ = ["Derivation", "derived"]


@dataclass(frozen=True)
class Derivation(Steps):
    """An expression on its way to be a feature; each step returns a new one.

    Iterating yields the ``millrace.spec.DerivedFeature``, so it can stand in a list of features as
    it is or unpacked by ``*``.
    """

    built: ClassVar[str] = "a derived feature"
    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("over", "hop", "offset"), "its windows are those of the features that it is derived of"
    )

    derive: str
    name: str | None = None
    default_: Any = None
    description: str = ""
    where: Location = spec.NOWHERE

    @builder
    def named(self, name: str) -> "Derivation":
        """Name the feature; a derived one has no name by itself."""
        return replace(self, name=text(name))

    @builder
    def default(self, value: Any) -> "Derivation":
        """Give a value in place of null: ``derived("a / NULLIF(b, 0)").named("share").default(0)``."""
        return replace(self, default_=literal_text(value))

    @builder
    def described(self, description: str) -> "Derivation":
        """Say what the feature is, for people."""
        return replace(self, description=text(description))

    def __iter__(self) -> Iterator[spec.DerivedFeature]:
        if self.name is None:
            raise SpecError(
                "a derived feature has no name", where=str(self.where), fix='add .named("…")'
            )
        yield spec.DerivedFeature(
            self.name, self.derive, self.default_, self.description, self.where
        )


@builder
def derived(derive: str) -> Derivation:
    """Calculate a feature of other features of its view, by an expression over their names.

    They may be derived themselves, and stand in any order. ``AS_OF()`` is the instant of the query.
    """
    return Derivation(text(derive), where=here())
