"""Who is told: routes by owner, tag, severity, kind and asset."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from alerts.facts import Kind, Severity, Story, Subject

_OURS: frozenset[Kind] = frozenset({"tick", "daemon", "sink"})
"""Kinds that are about the platform itself, not about somebody's data."""


@dataclass(frozen=True)
class Match:
    """What a route takes: all that is named must fit; what is not named always does.

    Attributes:
        owners: one of them owns it.
        tags: all of them stand on it, with these values.
        names: one of these patterns (``features/*``) fits the asset, job, view or sink.
    """

    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    severities: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def fits(self, subject: Subject, severity: Severity, story: Story) -> bool:
        """Say whether the route takes it."""
        return (
            (not self.owners or not set(self.owners).isdisjoint(story.owners))
            and all(story.tags.get(tag) == value for tag, value in self.tags.items())
            and (not self.severities or severity in self.severities)
            and (not self.kinds or subject.kind in self.kinds)
            and (not self.names or any(fnmatchcase(subject.name, n) for n in self.names))
        )


@dataclass(frozen=True)
class Route:
    """Sinks that are told of what fits."""

    match: Match
    sinks: tuple[str, ...]


@dataclass(frozen=True)
class Routing:
    """All routes.

    Attributes:
        routes: every one that fits counts, not only the first.
        fallback: told of what no route takes.
        operators: told of the platform's own faults, besides the routes that take them.
        sinks: every sink there is.
    """

    routes: tuple[Route, ...]
    fallback: tuple[str, ...]
    operators: tuple[str, ...]
    sinks: tuple[str, ...]

    def sinks_of(self, subject: Subject, severity: Severity, story: Story) -> tuple[str, ...]:
        """Return the sinks, each once, in the order of the routes.

        A sink is never told that it does not take messages itself: then all others are told if
        nobody else would be.
        """
        taken = [
            sink
            for route in self.routes
            if route.match.fits(subject, severity, story)
            for sink in route.sinks
        ]
        if subject.kind in _OURS:
            taken += self.operators
        found = tuple(dict.fromkeys(taken)) or self.fallback
        if subject.kind != "sink":
            return found
        others = tuple(sink for sink in found if sink != subject.name)
        return others or tuple(sink for sink in self.sinks if sink != subject.name)
