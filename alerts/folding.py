"""One cause, one incident: which of the incidents that opened are told, and which are folded.

An incident that another one explains (``causes``) is *folded* under it: nobody is told of it, and
the other one lists it. One whose cause may yet be read *waits* for a while before it is told. When
the cause has healed, a follower that fails again, or is not seen to heal for a while, is told as an
incident of its own. Pure, as ``decision`` is, whose second half it is.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from alerts.causes import NO_CAUSES, Candidate, Causes, day_of
from alerts.conditions import Condition, Incident, Transition
from alerts.facts import Subject, fingerprint_of
from millrace.durations import MINUTE_MS

CAUSE_HEALED = "what it was folded under is over, and this still fails"

_ANYWHERE = frozenset({"daemon", "tick", "run"})
"""Kinds that explain what has another name."""


@dataclass(frozen=True)
class Folds:
    """How incidents are folded.

    Attributes:
        causes: what may explain what; by default nothing does.
        hold_ms: an incident whose cause may be read later than itself waits so long for it.
        settle_ms: once a cause has healed, what followed from it has so long to heal as well.
    """

    causes: Causes = NO_CAUSES
    hold_ms: int = 2 * MINUTE_MS
    settle_ms: int = 30 * MINUTE_MS


ALL_ALONE = Folds()
"""Nothing is folded."""


def fold(
    conditions: MutableMapping[str, Condition],
    transitions: Sequence[Transition],
    now_ms: int,
    folds: Folds,
) -> list[Transition]:
    """Return what of the transitions is told, and of what waited; notes in the conditions the rest.

    Args:
        conditions: by fingerprint, as the facts left them; changed in place.
        transitions: everything that opened or was resolved, in the order of the facts.
        now_ms: the watcher's clock.
        folds: what is folded under what.
    """
    folding = _Folding(conditions, transitions, now_ms, folds)
    folding.settle()
    return list(folding.told())


def is_shown(conditions: Mapping[str, Condition], condition: Condition) -> bool:
    """Say whether an open incident stands for itself: it was told, and nothing open explains it."""
    incident = condition.open_incident
    return incident is not None and incident.is_told and not _is_covered(conditions, incident)


def root_of(conditions: Mapping[str, Condition], condition: Condition) -> str:
    """Return the fingerprint of the condition under which another one is folded; its own if none."""
    seen = [condition.fingerprint]
    while (incident := condition.incident) is not None and incident.under:
        above = conditions.get(incident.under)
        if above is None or above.fingerprint in seen:
            break
        condition = above
        seen.append(condition.fingerprint)
    return seen[-1]


def followers_of(conditions: Mapping[str, Condition]) -> dict[str, list[Subject]]:
    """Return what is folded and still fails, by the fingerprint of what it is folded under."""
    found: dict[str, list[Subject]] = {}
    for condition in conditions.values():
        incident = condition.open_incident
        if incident is not None and incident.under:
            found.setdefault(root_of(conditions, condition), []).append(condition.subject)
    return found


def standing(conditions: Mapping[str, Condition]) -> list[Condition]:
    """Return the open incidents that nothing open explains."""
    found = [(one, one.open_incident) for one in conditions.values()]
    return [one for one, incident in found if incident and not _is_covered(conditions, incident)]


def _is_covered(conditions: Mapping[str, Condition], incident: Incident) -> bool:
    above = conditions.get(incident.under)
    return above is not None and above.open_incident is not None


@dataclass(eq=False)
class _Episode:
    """One incident that was open at some instant of this decision.

    Attributes:
        place: in the total order of causes.
        was_told: before this decision.
        note: of the incident that is told now; None if it is not.
        more: sinks that are told of it besides, because of what is folded under it.
    """

    condition: Condition
    incident: Incident
    place: int
    was_told: bool
    note: str | None = None
    more: list[str] = field(default_factory=list)

    @property
    def is_told(self) -> bool:
        return self.was_told or self.note is not None

    @property
    def candidate(self) -> Candidate:
        condition, incident = self.condition, self.incident
        is_root = not incident.under
        return Candidate(condition.subject, condition.severity, incident.awaits, is_root)

    def overlaps(self, other: "_Episode") -> bool:
        """Say whether both failed at one time."""
        one, two = self.incident, other.incident
        return _begins_before_end(one, two) and _begins_before_end(two, one)

    def is_seen_since(self, healed: Incident) -> bool:
        """Say whether it failed again after its cause was well."""
        return healed.resolved_ms is None or self.condition.at_ms > healed.resolved_ms


def _begins_before_end(one: Incident, other: Incident) -> bool:
    return other.resolved_ms is None or one.opened_ms < other.resolved_ms


class _Folding:
    """The state of one decision's second half; lives no longer than the call."""

    def __init__(
        self,
        conditions: MutableMapping[str, Condition],
        transitions: Sequence[Transition],
        now_ms: int,
        folds: Folds,
    ) -> None:
        self.conditions, self.transitions = conditions, transitions
        self.now_ms, self.folds = now_ms, folds
        found = [
            (Condition(one.subject, one.severity), one.incident)
            for one in transitions
            if one.change == "resolved"
        ]
        found += [(c, c.open_incident) for c in conditions.values() if c.open_incident is not None]
        found.sort(key=lambda one: folds.causes.key(one[0].subject, one[0].severity))
        self.episodes = {
            incident.id: _Episode(condition, incident, place, incident.is_told)
            for place, (condition, incident) in enumerate(found)
        }
        self.search = _Search(folds.causes, self.episodes.values())

    def settle(self) -> None:
        """Decide of each incident, causes before what follows from them."""
        has_news = any(one.change == "opened" for one in self.transitions)
        for episode in self.episodes.values():
            incident = episode.incident
            if not incident.is_open:
                if not (incident.is_told or incident.under or self.search.cause(episode)):
                    episode.note = ""
            elif incident.under or has_news or not incident.is_told:
                self._settle_open(episode)
        for episode in self.episodes.values():
            if episode.incident.is_open:
                self._note(episode)

    def _settle_open(self, episode: _Episode) -> None:
        incident = episode.incident
        if _is_covered(self.conditions, incident):
            return
        cause = self.search.cause(episode, self._stands)
        if cause is not None:
            self._put(episode, cause.condition.fingerprint)
        elif incident.under:
            self._settle_orphan(episode)
        elif not incident.is_told:
            healed = self.search.cause(episode, lambda one: not one.incident.is_open)
            if healed is not None and not episode.is_seen_since(healed.incident):
                self._put(episode, healed.condition.fingerprint)
            elif not self._waits(episode):
                episode.note = ""

    def _stands(self, episode: _Episode) -> bool:
        """Say whether an incident is open, and not left behind by a cause that has healed."""
        root = self.conditions.get(root_of(self.conditions, episode.condition))
        return episode.incident.is_open and root is not None and root.open_incident is not None

    def _settle_orphan(self, episode: _Episode) -> None:
        """Decide of an incident whose cause has healed."""
        above = self.conditions.get(episode.incident.under)
        healed = None if above is None else above.incident
        if (
            healed is not None
            and not episode.is_seen_since(healed)
            and self.now_ms - healed.notified_ms < self.folds.settle_ms
        ):
            return
        self._put(episode, "")
        if not episode.was_told:
            episode.note = CAUSE_HEALED

    def _waits(self, episode: _Episode) -> bool:
        waited_ms = self.now_ms - episode.incident.notified_ms
        may_wait = self.folds.causes.may_wait(episode.condition.subject)
        return may_wait and waited_ms < self.folds.hold_ms

    def _put(self, episode: _Episode, under: str) -> None:
        episode.incident = replace(episode.incident, under=under)
        self._store(episode)
        root = self.conditions[root_of(self.conditions, episode.condition)].open_incident
        if under and root is not None and not episode.was_told:
            self.episodes[root.id].more += episode.incident.sinks

    def _note(self, episode: _Episode) -> None:
        """Have whoever follows from an incident told of it, and remember that it is told."""
        before = episode.incident
        sinks = tuple(dict.fromkeys((*before.sinks, *episode.more)))
        episode.more = [sink for sink in sinks if sink not in before.sinks]
        episode.incident = replace(before, sinks=sinks, is_told=episode.is_told)
        if episode.note is not None:
            episode.incident = replace(episode.incident, notified_ms=self.now_ms)
        if episode.incident != before:
            self._store(episode)

    def _store(self, episode: _Episode) -> None:
        episode.condition = replace(episode.condition, incident=episode.incident)
        self.conditions[episode.condition.fingerprint] = episode.condition

    def told(self) -> Iterator[Transition]:
        """Yield what is told: what waited, then in the order of the facts, then what was left behind."""
        followers = followers_of(self.conditions)

        def of(told: Transition) -> Transition:
            failing = followers.get(fingerprint_of(told.subject, told.severity), ())
            return replace(told, followers=tuple(failing))

        fresh = {one.incident.id for one in self.transitions if one.change == "opened"}
        waited = [
            episode
            for identity, episode in self.episodes.items()
            if episode.note is not None and identity not in fresh
        ]
        yield from (of(self._opened(one)) for one in waited if one.note != CAUSE_HEALED)
        for one in self.transitions:
            episode = self.episodes[one.incident.id]
            if one.change == "opened" and episode.note is not None:
                incident = replace(episode.incident, resolved_ms=None)
                yield of(replace(one, incident=incident, note=episode.note))
            elif one.change == "resolved" and episode.is_told:
                yield of(one)
        yield from (of(self._opened(one)) for one in waited if one.note == CAUSE_HEALED)
        for episode in self.episodes.values():
            if episode.was_told and episode.incident.is_open and episode.more:
                yield of(replace(self._opened(episode), only_to=tuple(episode.more)))

    @staticmethod
    def _opened(episode: _Episode) -> Transition:
        subject, severity = episode.condition.subject, episode.condition.severity
        incident = episode.incident
        at_ms, note = incident.opened_ms, episode.note or ""
        opened = replace(incident, resolved_ms=None)
        return Transition("opened", subject, severity, opened, incident.story, at_ms, note=note)


class _Search:
    """Finds what explains an incident, by name and day: of many it looks at few."""

    def __init__(self, causes: Causes, episodes: Collection[_Episode]) -> None:
        self._causes = causes
        self._of_day: dict[tuple[str, date | None], list[_Episode]] = {}
        self._of_name: dict[str, list[_Episode]] = {}
        self._anywhere: list[_Episode] = []
        self._below: dict[str, list[str]] = {}
        for episode in episodes:
            subject = episode.condition.subject
            self._of_day.setdefault((subject.name, day_of(subject)), []).append(episode)
            self._of_name.setdefault(subject.name, []).append(episode)
            if subject.kind in _ANYWHERE:
                self._anywhere.append(episode)
        for name, above in causes.upstream.items():
            for one in above:
                self._below.setdefault(one, []).append(name)

    def cause(
        self, episode: _Episode, may_be: Callable[[_Episode], bool] = lambda _: True
    ) -> _Episode | None:
        """Return what explains an incident: of its own day if anything does, else of the nearest."""
        for near in self._nearest_first(episode.condition.subject):
            found = [
                one
                for one in near
                if one is not episode
                and one.overlaps(episode)
                and self._causes.explains(one.candidate, episode.candidate)
                and may_be(one)
            ]
            if found:
                return min(found, key=lambda one: one.place)
        return None

    def _nearest_first(self, subject: Subject) -> Iterator[list[_Episode]]:
        day, above = day_of(subject), self._causes.upstream.get(subject.name, ())
        around = (subject.name, *above, *self._below.get(subject.name, ()))
        if day is None:
            yield [one for name in around for one in self._of_name.get(name, ())]
        else:
            for back in range(self._causes.reach_of(subject) + 1):
                at = day - timedelta(days=back)
                yield [one for name in around for one in self._of_day.get((name, at), ())]
            yield [one for name in around for one in self._of_day.get((name, None), ())]
        yield self._anywhere
