"""What was seen of one thing at one instant: the material that alerts are decided on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

Severity = Literal["error", "warn"]
Kind = Literal["check", "partition", "days", "late", "run", "stream", "tick", "daemon", "sink"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
KINDS: tuple[Kind, ...] = get_args(Kind)

WHOLE = "-"
"""Stands where a subject has no partition."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Subject:
    """The thing that is well or not.

    Attributes:
        kind: ``check`` of an asset, ``partition`` that a run was to build, ``days`` that no run was
            to build, ``late`` files of a source, ``run`` of a job, ``stream`` of a view, ``tick``
            of a schedule or sensor,
            ``daemon`` of Dagster, ``sink`` of ours.
        name: asset (``events/payments``), job, view, schedule, daemon or sink.
        aspect: which of several: the check, the stream's property; may be empty.
        partition: ``2020-01-31``, or what else narrows it; ``-`` for the whole.
    """

    kind: Kind
    name: str
    aspect: str = ""
    partition: str = WHOLE

    @property
    def key(self) -> str:
        """The identity: ``check|events/payments|null_rate|2020-01-31``."""
        return "|".join((self.kind, self.name, self.aspect, self.partition))

    @classmethod
    def parse(cls, key: str) -> "Subject":
        """Read ``key`` back."""
        kind, name, aspect, partition = key.split("|", 3)
        known: Mapping[str, Kind] = {one: one for one in KINDS}
        return cls(known[kind], name, aspect, partition)


def fingerprint_of(subject: Subject, severity: Severity) -> str:
    """Return the identity of what can be open at most once at a time."""
    return f"{subject.key}|{severity}"


@dataclass(frozen=True)
class Story:
    """What a reader is told.

    Attributes:
        summary: what is wrong, or that it no longer is; one line.
        details: short facts by name, in the order to show.
        owners: as declared; alerts are routed by them.
        tags: as declared.
        run_id: the run it was seen in; empty for none.
        runbook: URL or path of what to do; empty for none.
        days: the days that it is about, in words, where the subject is more than one; may be empty.
    """

    summary: str = ""
    details: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    run_id: str = ""
    runbook: str = ""
    days: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``from_json`` reads them."""
        return {
            "summary": self.summary,
            "details": dict(self.details),
            "owners": list(self.owners),
            "tags": dict(self.tags),
            "run_id": self.run_id,
            "runbook": self.runbook,
            "days": self.days,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Story":
        """Read what ``to_json`` wrote."""
        return cls(**{**document, "owners": tuple(document["owners"])})


@dataclass(frozen=True)
class Fact:
    """One thing was well or not at one instant.

    The same fact may be read any number of times, and facts may come in any order.

    Attributes:
        at_ms: when it was so, epoch milliseconds; not when it was read.
        origin: tells apart what was seen at the same millisecond; the greater is the newer.
        hold_ms: it must have failed for so long before anybody is told.
        awaits: keys of subjects; once each of them was seen done after ``at_ms``, this failure is
            over too. Empty: only a fact of the same subject ends it.
    """

    subject: Subject
    severity: Severity
    is_ok: bool
    at_ms: int
    story: Story = field(default_factory=Story)
    origin: str = ""
    hold_ms: int = 0
    awaits: Collection[str] = ()

    @property
    def fingerprint(self) -> str:
        """What this fact is news of."""
        return fingerprint_of(self.subject, self.severity)

    @property
    def order(self) -> tuple[int, str]:
        """Facts of one fingerprint follow each other by this."""
        return (self.at_ms, self.origin)
