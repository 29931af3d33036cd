"""How features are referred to: ``feature``, ``view:feature``, ``view:*`` and ``service:name``.

One grammar for services, training sets, lookups and the command; which features a name can mean is
decided where it is asked, since each knows of other views.
"""

from dataclasses import dataclass
from typing import Self

SERVICE = "service"
ALL = "*"


@dataclass(frozen=True)
class FeatureReference:
    """A reference, taken apart.

    Attributes:
        view: the view named; None for a bare feature and for a service.
        name: of the feature; of the service where ``is_service``; ``*`` where ``is_whole_view``.
    """

    view: str | None
    name: str
    is_service: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a reference apart; blanks around it do not count.

        >>> FeatureReference.parse("spend:tx_1d").view, FeatureReference.parse("spend:*").is_whole_view
        ('spend', True)
        >>> FeatureReference.parse("tx_1d").view is None
        True
        >>> FeatureReference.parse("service:fraud").is_service
        True
        """
        head, colon, rest = text.strip().partition(":")
        if not colon:
            return cls(None, head)
        if head == SERVICE:
            return cls(None, rest, is_service=True)
        return cls(head, rest)

    @property
    def is_whole_view(self) -> bool:
        """Whether all features of the view are meant."""
        return self.view is not None and self.name == ALL
