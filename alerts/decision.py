"""Which transitions follow from what was seen: a pure function over conditions and facts.

A *condition* is what is known of one fingerprint (subject and severity); an *incident* is one span
in which it failed. Facts are ordered by their own time, so neither the order nor the number of
times in which they are read matters; a transition has the same key however often it is decided.

A failure that is read late, after a newer success, was an incident that opened and healed unseen:
both transitions are told. A success that is read late, from within an incident, changes nothing.

What opened is then folded: see ``folding``.

Source of the form: Alertmanager's fingerprints and ``for``, with event time in place of samples.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from alerts.conditions import Change, Condition, Incident, Transition
from alerts.facts import SEVERITIES, Fact, Severity, Story, Subject, fingerprint_of
from alerts.folding import ALL_ALONE, Folds, fold, followers_of, is_shown

NO_LONGER_DECLARED = "closed: no longer declared"
BUILT_SINCE = "what it should have done was done since"

Route = Callable[[Subject, Severity, Story], tuple[str, ...]]
"""Says to which sinks a story goes."""


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
    folds: Folds = ALL_ALONE,
) -> Decision:
    """Return what changed and what is to be told of it.

    Args:
        known: conditions by fingerprint: at least those of the facts, those with an open incident,
            those under which one is folded, and those that an open incident or a fact awaits.
        facts: in any order; ones that were seen before change nothing.
        now_ms: the watcher's clock.
        renotify_ms: an error that stays open is told again after so long; a warning is told once.
        route: names the sinks; those who were told of an incident hear of its end.
        gone: fingerprints of conditions whose subject is declared no more.
        folds: what is folded under what; by default every incident stands for itself.
    """
    deciding = _Deciding(dict(known), now_ms, route)
    for fact in sorted(facts, key=lambda fact: fact.order):
        deciding.apply(fact)
    deciding.close(gone)
    deciding.end_awaited()
    deciding.transitions = fold(deciding.conditions, deciding.transitions, now_ms, folds)
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
            is_told=False,
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
        note: str = "",
    ) -> None:
        subject, severity = condition.subject, condition.severity
        self.transitions.append(
            Transition(change, subject, severity, incident, story, at_ms, note=note)
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
        followers = followers_of(self.conditions)
        for fingerprint, condition in list(self.conditions.items()):
            incident = condition.open_incident
            if incident is None or condition.severity != "error":
                continue
            if self.now_ms - incident.notified_ms < renotify_ms:
                continue
            if not is_shown(self.conditions, condition):
                continue
            number = incident.reminders + 1
            routed = self.route(condition.subject, condition.severity, incident.story)
            newest = replace(
                incident,
                reminders=number,
                notified_ms=self.now_ms,
                sinks=tuple(dict.fromkeys((*incident.sinks, *routed))),
            )
            told = Transition(
                "still", condition.subject, condition.severity, newest, incident.story, self.now_ms
            )
            folded = tuple(followers.get(fingerprint, ()))
            self.transitions.append(replace(told, number=number, followers=folded))
            self.conditions[fingerprint] = replace(condition, incident=newest)

    def changed(self, known: Mapping[str, Condition]) -> dict[str, Condition]:
        return {f: c for f, c in self.conditions.items() if known.get(f) != c}
