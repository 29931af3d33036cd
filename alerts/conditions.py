"""What is known of one thing over time: its condition, its incidents, and what is told of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alerts.facts import Severity, Story, Subject, fingerprint_of

Change = Literal["opened", "still", "resolved"]

NEVER = (-1, "")
"""Time and origin of the newest fact of what was never seen."""


@dataclass(frozen=True)
class Incident:
    """One span in which a condition failed.

    Attributes:
        id: made from the fingerprint and the fact that opened it.
        opened_ms: time of that fact.
        resolved_ms: time of the fact that ended it; None while it is open.
        notified_ms: when its last transition was decided, by the watcher's clock.
        reminders: how often it was told again.
        sinks: everybody who was told of it.
        awaits: see ``Fact``.
        is_told: False as long as nobody was told of it: it waits for its cause, or is folded.
        under: fingerprint of the condition that explains it; empty: it stands for itself.
    """

    id: str
    opened_ms: int
    story: Story
    notified_ms: int
    sinks: tuple[str, ...]
    resolved_ms: int | None = None
    reminders: int = 0
    awaits: frozenset[str] = frozenset()
    is_told: bool = True
    under: str = ""

    @property
    def is_open(self) -> bool:
        """True until it is resolved."""
        return self.resolved_ms is None


@dataclass(frozen=True)
class Condition:
    """What is known of one fingerprint.

    Attributes:
        is_ok: by the newest fact.
        at_ms: time of the newest fact.
        origin: of the newest fact.
        failing_since_ms: first failure in a row; None if it is well.
        incident: the newest one, open or not; None if there never was one.
    """

    subject: Subject
    severity: Severity
    is_ok: bool = True
    at_ms: int = NEVER[0]
    origin: str = NEVER[1]
    failing_since_ms: int | None = None
    incident: Incident | None = None

    @property
    def fingerprint(self) -> str:
        """Its identity."""
        return fingerprint_of(self.subject, self.severity)

    @property
    def open_incident(self) -> Incident | None:
        """The incident that is not over."""
        return self.incident if self.incident is not None and self.incident.is_open else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``from_json`` reads them."""
        incident = self.incident
        return {
            "subject": self.subject.key,
            "severity": self.severity,
            "is_ok": self.is_ok,
            "at_ms": self.at_ms,
            "origin": self.origin,
            "failing_since_ms": self.failing_since_ms,
            "incident": None
            if incident is None
            else {
                **vars(incident),
                "story": incident.story.to_json(),
                "awaits": sorted(incident.awaits),
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Condition":
        """Read what ``to_json`` wrote."""
        told = document["incident"]
        incident = None
        if told is not None:
            read = {
                "story": Story.from_json(told["story"]),
                "sinks": tuple(told["sinks"]),
                "awaits": frozenset(told["awaits"]),
            }
            incident = Incident(**{**told, **read})
        subject = Subject.parse(document["subject"])
        return cls(**{**document, "subject": subject, "incident": incident})


@dataclass(frozen=True)
class Transition:
    """One thing to tell, to some sinks.

    Attributes:
        number: of the reminder; 0 for the other changes.
        at_ms: time of the fact it follows from; for a reminder, of the decision.
        note: why, where the story does not say it.
        followers: what else fails and is folded under it.
        only_to: the sinks to tell; None: all that the incident is told to.
    """

    change: Change
    subject: Subject
    severity: Severity
    incident: Incident
    story: Story
    at_ms: int
    number: int = 0
    note: str = ""
    followers: tuple[Subject, ...] = ()
    only_to: tuple[str, ...] | None = None

    @property
    def sinks(self) -> tuple[str, ...]:
        """Who is told."""
        return self.incident.sinks if self.only_to is None else self.only_to

    @property
    def key(self) -> str:
        """The idempotency key: the same transition has it however often it is sent."""
        return ":".join((self.incident.id, self.change, *([str(self.number)] * bool(self.number))))
