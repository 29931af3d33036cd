"""What an audit of served answers has shown: compared, different, and not looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checks.parity.history_served import ServedHistory
from millrace.calendar import to_datetime
from millrace.days import day_list
from millrace.plan import ViewPlan
from resources.online_api import Key, value_to_json


@dataclass(frozen=True)
class Difference:
    """One value that was served, and what it should have been.

    Attributes:
        what: ``value`` or ``ts``.
    """

    feature: str
    key: Key
    as_of_ms: int
    what: str
    served: Any
    recomputed: Any

    def as_json(self, view: ViewPlan) -> dict[str, Any]:
        """Return the difference as plain JSON values."""
        is_value = self.what == "value"
        type_ = view.output(self.feature).type
        served, recomputed = (
            value_to_json(v, type_) if is_value else iso_text(v)
            for v in (self.served, self.recomputed)
        )
        key = [value_to_json(v, e.type) for v, e in zip(self.key, view.entities, strict=True)]
        return {
            "feature": self.feature,
            "key": key if len(key) > 1 else key[0],
            "as_of": iso_text(self.as_of_ms),
            "what": self.what,
            "served": served,
            "recomputed": recomputed,
        }


@dataclass(frozen=True)
class InFlightShare:
    """What was missing because it was still under way.

    Attributes:
        allowed_ms: how old such an event may be.
        answers: answers that lacked at least one event.
        events: events that were missing, of all answers.
        lag_ms: age of the oldest of them when its answer was given; 0 if none was missing.
    """

    allowed_ms: int
    answers: int = 0
    events: int = 0
    lag_ms: int = 0


@dataclass(frozen=True)
class ParityReport:
    """What an audit has shown.

    Attributes:
        samples: entities asked about, by kind.
        known: entities that offline knows: with an event that counts in a day within reach.
        values: values compared: answers times features.
        differences: the first of those values that differ, and ``differing`` how many there are.
        as_of_ms: the first and the last instant asked about.
        archive_wait_s: how long the archive took to pass the last of them.
        history: the days with events, and which of them the online values lack: the likeliest cause
            of differences.
        features_without_value: features that were null or 0 in every answer and recomputation, of
            which nothing was seen therefore.
    """

    view: ViewPlan
    version: str
    seed: int
    samples: Mapping[str, int]
    statuses: Mapping[str, int]
    values: int
    differing: int
    differences: tuple[Difference, ...]
    in_flight: InFlightShare
    as_of_ms: tuple[int, int]
    archive_wait_s: float
    seconds: float
    by_feature: Mapping[str, int] = field(default_factory=dict)
    known: int = 0
    history: ServedHistory = field(kw_only=True)
    features_without_value: tuple[str, ...] = ()

    @property
    def hint(self) -> str | None:
        """Which days the online values lack and how to mend it; None if they lack none."""
        hint = self.history.hint
        if hint is None or not self.is_equal:
            return hint
        return f"{hint} (no difference found yet: the stream brought these events, or none counts)"

    @property
    def asked(self) -> int:
        """How many of the entities that offline knows were asked about."""
        return sum(count for kind, count in self.samples.items() if kind != "unknown")

    @property
    def passed_over(self) -> tuple[str, ...]:
        """What was not looked at, in words."""
        history, said = self.history, []
        if self.known > self.asked:
            said.append(f"{self.known - self.asked:,} of {self.known:,} entities")
        if history.held:
            said.append(f"days held back by their checks: {day_list(history.held)}")
        if days := history.out_of_reach:
            said.append(f"{len(days):,} day(s) of events that no window reaches any more")
        if self.features_without_value:
            said.append(f"features that had no value: {', '.join(self.features_without_value)}")
        return tuple(said)

    @property
    def is_equal(self) -> bool:
        """True if answers were compared and not one value differs."""
        return self.values > 0 and self.differing == 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "view": self.view.name,
            "version": self.version,
            "fingerprint": self.view.fingerprint,
            "equal": self.is_equal,
            "samples": dict(self.samples),
            "statuses": dict(self.statuses),
            "features": len(self.view.outputs),
            "values": self.values,
            "differing": self.differing,
            "by_feature": dict(self.by_feature),
            "differences": [d.as_json(self.view) for d in self.differences],
            "entities": {"known": self.known, "asked": self.asked},
            "days": self.history.as_json(),
            "days_without_tiles": [day.isoformat() for day in self.history.without_tiles],
            "features_without_value": list(self.features_without_value),
            "not_looked_at": list(self.passed_over),
            "hint": self.hint,
            "in_flight": {
                "allowed_ms": self.in_flight.allowed_ms,
                "answers": self.in_flight.answers,
                "events": self.in_flight.events,
                "lag_ms": self.in_flight.lag_ms,
            },
            "as_of": [iso_text(at) for at in self.as_of_ms],
            "archive_wait_s": round(self.archive_wait_s, 3),
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
        }


def iso_text(instant_ms: int | None) -> str | None:
    """Return an instant of epoch milliseconds as ISO-8601 text of UTC; None of None."""
    if instant_ms is None:
        return None
    moment = to_datetime(instant_ms)
    text = str(instant_ms) if moment is None else moment.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
