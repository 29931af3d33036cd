"""Which transitions follow from what was seen: a pure function over conditions and facts.

A *condition* is what is known of one fingerprint (subject and severity); an *incident* is one span
in which it failed. Facts are ordered by their own time, so neither the order nor the number of
times in which they are read matters; a transition has the same key however often it is decided.

A failure that is read late, after a newer success, was an incident that opened and healed unseen:
both transitions are told. A success that is read late, from within an incident, changes nothing.

Source of the form: Alertmanager's fingerprints and ``for``, with event time in place of samples.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from resources.alerts.facts import SEVERITIES, Fact, Severity, Story, Subject, fingerprint_of

Change = Literal["opened", "still", "resolved"]

NO_LONGER_DECLARED = "closed: no longer declared"
BUILT_SINCE = "what it should have done was done since"
_NEVER = (-1, "")

Route = Callable[[Subject, Severity, Story], tuple[str, ...]]
"""Says to which sinks a story goes."""


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
    """

    id: str
    opened_ms: int
    story: Story
    notified_ms: int
    sinks: tuple[str, ...]
    resolved_ms: int | None = None
    reminders: int = 0
    awaits: frozenset[str] = frozenset()

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
    at_ms: int = _NEVER[0]
    origin: str = _NEVER[1]
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
    """

    change: Change
    subject: Subject
    severity: Severity
    incident: Incident
    story: Story
    at_ms: int
    number: int = 0
    note: str = ""

    @property
    def key(self) -> str:
        """The idempotency key: the same transition has it however often it is sent."""
        return ":".join((self.incident.id, self.change, *([str(self.number)] * bool(self.number))))


@dataclass(frozen=True)
class Decision:
    """What follows: conditions that changed, and transitions in the order to be told."""

    changed: Mapping[str, Condition] = field(default_factory=dict)
    transitions: tuple[Transition, ...] = ()


def decide(
    known: Mapping[str, Condition],
    facts: Iterable[Fact],
    *,
    now_ms: int,
    renotify_ms: int,
    route: Route,
    gone: Collection[str] = (),
) -> Decision:
    """Return what changed and what is to be told of it.

    Args:
        known: conditions by fingerprint: at least those of the facts, those with an open incident
            and those that an open incident or a fact awaits.
        facts: in any order; ones that were seen before change nothing.
        now_ms: the watcher's clock.
        renotify_ms: an incident that stays open is told again after so long.
        route: names the sinks; those who were told of an incident hear of its end.
        gone: fingerprints of conditions whose subject is declared no more.
    """
    deciding = _Deciding(dict(known), now_ms, route)
    for fact in sorted(facts, key=lambda fact: fact.order):
        deciding.apply(fact)
    deciding.close(gone)
    deciding.end_awaited()
    deciding.remind(renotify_ms)
    return Decision(deciding.changed(known), tuple(deciding.transitions))


def awaited_fingerprints(keys: Iterable[str]) -> list[str]:
    """Return the fingerprints that say whether awaited subjects were seen done."""
    return [fingerprint_of(Subject.parse(key), severity) for key in keys for severity in SEVERITIES]


@dataclass
class _Deciding:
    """The state of one decision; lives no longer than the call."""

    conditions: dict[str, Condition]
    now_ms: int
    route: Route
    transitions: list[Transition] = field(default_factory=list)

    def apply(self, fact: Fact) -> None:
        before = self.conditions.get(fact.fingerprint)
        if before is None:
            before = Condition(fact.subject, fact.severity)
        if fact.order <= (before.at_ms, before.origin):
            after = self._late(before, fact)
        elif fact.is_ok:
            after = self._healed(before, fact)
        else:
            after = self._failed(before, fact)
        self.conditions[fact.fingerprint] = after

    def _late(self, before: Condition, fact: Fact) -> Condition:
        last_ms = -1 if before.incident is None else before.incident.resolved_ms
        # Whatever lies before the end of the newest incident was told as part of it, or was seen.
        if fact.is_ok or not before.is_ok or fact.hold_ms or last_ms is None:
            return before
        if fact.at_ms <= last_ms or fact.at_ms >= before.at_ms:
            return before
        opened = self._open(before, fact, fact.at_ms)
        return self._resolve(opened, before.at_ms, fact.story, "it passed since")

    def _healed(self, before: Condition, fact: Fact) -> Condition:
        after = replace(
            before, is_ok=True, at_ms=fact.at_ms, origin=fact.origin, failing_since_ms=None
        )
        if before.open_incident is None:
            return after
        return self._resolve(after, fact.at_ms, fact.story)

    def _failed(self, before: Condition, fact: Fact) -> Condition:
        since_ms = fact.at_ms if before.failing_since_ms is None else before.failing_since_ms
        after = replace(
            before, is_ok=False, at_ms=fact.at_ms, origin=fact.origin, failing_since_ms=since_ms
        )
        incident = before.open_incident
        if incident is not None:
            newest = replace(incident, story=fact.story, awaits=frozenset(fact.awaits))
            return replace(after, incident=newest)
        if fact.at_ms - since_ms < fact.hold_ms:
            return after
        return self._open(after, fact, since_ms)

    def _open(self, condition: Condition, fact: Fact, opened_ms: int) -> Condition:
        seed = f"{fact.fingerprint}|{fact.at_ms}|{fact.origin}"
        incident = Incident(
            id=hashlib.sha256(seed.encode()).hexdigest()[:20],
            opened_ms=opened_ms,
            story=fact.story,
            notified_ms=self.now_ms,
            sinks=self.route(fact.subject, fact.severity, fact.story),
            awaits=frozenset(fact.awaits),
        )
        self._tell("opened", condition, incident, fact.story, fact.at_ms)
        return replace(condition, incident=incident)

    def _resolve(
        self, condition: Condition, at_ms: int, story: Story | None = None, note: str = ""
    ) -> Condition:
        incident = condition.open_incident
        if incident is None:
            return condition
        over = replace(incident, resolved_ms=at_ms, notified_ms=self.now_ms)
        about = incident.story
        if story is not None:
            about = replace(story, owners=about.owners, tags=about.tags, runbook=about.runbook)
        self._tell("resolved", condition, over, about, at_ms, note=note)
        return replace(condition, incident=over, failing_since_ms=None)

    def _tell(
        self,
        change: Change,
        condition: Condition,
        incident: Incident,
        story: Story,
        at_ms: int,
        *,
        number: int = 0,
        note: str = "",
    ) -> None:
        self.transitions.append(
            Transition(
                change, condition.subject, condition.severity, incident, story, at_ms, number, note
            )
        )

    def close(self, gone: Collection[str]) -> None:
        for fingerprint in gone:
            condition = self.conditions.get(fingerprint)
            if condition is not None and condition.open_incident is not None:
                at_ms = max(self.now_ms, condition.at_ms)
                closed = self._resolve(condition, at_ms, note=NO_LONGER_DECLARED)
                self.conditions[fingerprint] = replace(closed, is_ok=True, at_ms=at_ms)

    def end_awaited(self) -> None:
        for fingerprint, condition in list(self.conditions.items()):
            incident = condition.open_incident
            if incident is None or not incident.awaits:
                continue
            seen = {key: self._done_ms(key, condition.at_ms) for key in incident.awaits}
            left = frozenset(key for key, done_ms in seen.items() if done_ms is None)
            if left == incident.awaits:
                continue
            self.conditions[fingerprint] = after = replace(
                condition, incident=replace(incident, awaits=left)
            )
            if not left:
                ended_ms = max(done_ms for done_ms in seen.values() if done_ms is not None)
                resolved = self._resolve(after, ended_ms, note=BUILT_SINCE)
                self.conditions[fingerprint] = replace(resolved, is_ok=True, at_ms=ended_ms)

    def _done_ms(self, key: str, after_ms: int) -> int | None:
        """Return when an awaited subject was seen done; a check is, whatever it said."""
        for severity in SEVERITIES:
            seen = self.conditions.get(f"{key}|{severity}")
            is_done = seen is not None and (seen.is_ok or seen.subject.kind == "check")
            if seen is not None and is_done and seen.at_ms > after_ms:
                return seen.at_ms
        return None

    def remind(self, renotify_ms: int) -> None:
        for fingerprint, condition in list(self.conditions.items()):
            incident = condition.open_incident
            if incident is None or self.now_ms - incident.notified_ms < renotify_ms:
                continue
            number = incident.reminders + 1
            routed = self.route(condition.subject, condition.severity, incident.story)
            newest = replace(
                incident,
                reminders=number,
                notified_ms=self.now_ms,
                sinks=tuple(dict.fromkeys((*incident.sinks, *routed))),
            )
            self._tell("still", condition, newest, incident.story, self.now_ms, number=number)
            self.conditions[fingerprint] = replace(condition, incident=newest)

    def changed(self, known: Mapping[str, Condition]) -> dict[str, Condition]:
        return {f: c for f, c in self.conditions.items() if known.get(f) != c}
