"""Served answers held against the lake: what ``millrace parity`` and the asset check do.

Answers are taken over HTTP, as any client gets them. When the archive has passed the instant that
an answer names, the lake holds every event that was known then, and the answer can be recomputed.
The rule for events that were still under way is docs/parity.md.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from checks.recomputing import Recomputed, Recomputer
from checks.sampling import SampledKey, sample_keys
from millrace.errors import DataError, EngineUnavailable
from millrace.plan import FeaturePlan, Plan, ViewPlan
from resources.archived_days import events_table
from resources.endpoints import kafka_bootstrap, server_url
from resources.lake import open_table
from resources.online_api import Key, ServedEntity, batch_lookup, value_to_json
from resources.partition_log import built_days, read_partition_log
from resources.reports import day_list
from resources.settings import Settings
from resources.stream_books import read_markers
from resources.tiles_table import tiles_table
from resources.versions import deployed_version

IN_FLIGHT_MS = 5_000
"""An event that arrived at most this long before an answer may be missing from it."""

ARCHIVE_DEADLINE_S = 120.0
DEFAULT_SAMPLES = 200

_KEYS_AT_ONCE = 50
_PAUSE_S = 0.25
_APPEND_SLACK_S = 0.05
_SHOWN = 50
_RELATIVE = 1e-9
_ABSOLUTE = 1e-12
_ADDED = frozenset({"sum", "avg", "variance", "stddev"})

Progress = Callable[[str], None]


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
        type_ = view.feature(self.feature).type
        served, recomputed = (
            value_to_json(v, type_) if is_value else _iso(v) for v in (self.served, self.recomputed)
        )
        key = [value_to_json(v, e.type) for v, e in zip(self.key, view.entities, strict=True)]
        return {
            "feature": self.feature,
            "key": key if len(key) > 1 else key[0],
            "as_of": _iso(self.as_of_ms),
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
        values: values compared: answers times features.
        differences: the first of those values that differ, and ``differing`` how many there are.
        as_of_ms: the first and the last instant asked about.
        archive_wait_s: how long the archive took to pass the last of them.
        days_without_tiles: if values differ, days of history whose events are in the lake and whose
            tiles were never built, so that nothing of them could be uploaded: the likeliest cause.
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
    days_without_tiles: tuple[date, ...] = ()

    @property
    def hint(self) -> str | None:
        """What most likely made values differ and how to mend it; None if that is not known."""
        if not self.days_without_tiles:
            return None
        first, last = self.days_without_tiles[0], self.days_without_tiles[-1]
        name, end = self.view.name, last + timedelta(days=1)
        return (
            f"{day_list(self.days_without_tiles)} have events and no tiles, so what is served lacks "
            f"them: millrace backfill {name} --start {first} --end {end}, then millrace upload {name}"
        )

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
            "features": len(self.view.features),
            "values": self.values,
            "differing": self.differing,
            "by_feature": dict(self.by_feature),
            "differences": [d.as_json(self.view) for d in self.differences],
            "days_without_tiles": [day.isoformat() for day in self.days_without_tiles],
            "in_flight": {
                "allowed_ms": self.in_flight.allowed_ms,
                "answers": self.in_flight.answers,
                "events": self.in_flight.events,
                "lag_ms": self.in_flight.lag_ms,
            },
            "as_of": [_iso(at) for at in self.as_of_ms],
            "archive_wait_s": round(self.archive_wait_s, 3),
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class _Answer:
    """One entity's answer, and the instant it is true of."""

    served: ServedEntity
    as_of_ms: int


def check_parity(
    settings: Settings,
    plan: Plan,
    view_name: str,
    progress: Progress,
    *,
    samples: int = DEFAULT_SAMPLES,
    seed: int | None = None,
    in_flight_ms: int = IN_FLIGHT_MS,
    deadline_s: float = ARCHIVE_DEADLINE_S,
) -> ParityReport:
    """Take served answers of a view, recompute them from the lake, and compare every value.

    Args:
        settings: where everything is.
        plan: everything declared; the version asked for is that of the present declaration.
        view_name: which view.
        progress: told in words what is going on.
        samples: entities to ask about.
        seed: chooses them; None: by the clock. The report names it.
        in_flight_ms: how old an event may be at most that an answer lacks.
        deadline_s: how long to wait for the archive.

    Raises:
        NotDeclared: no such view.
        DataError: the view was never built or deployed here, or no event is in the lake.
        EngineUnavailable: the online API or Kafka does not answer, or the archive does not get on.
        EngineRejected: the online API does not serve this version.
    """
    began = time.monotonic()
    view = plan.view(view_name)
    version = _version(settings, view)
    url = server_url(settings)
    seed = time.time_ns() // 1_000_000 if seed is None else seed
    sampled = sample_keys(settings, view, samples, seed)
    progress(f"{view.name} {version}: looking up {len(sampled)} entities")
    answers = _look_up(url, view, version, sampled, seed)
    instants = [answer.as_of_ms for answer in answers]
    waited = _wait_for_archive(settings, view, max(instants), progress, deadline_s)
    progress(f"{view.name} {version}: recomputing {len(answers)} answers")
    recomputer = Recomputer(settings, view, [one.key for one in sampled], instants)
    comparison = _Comparison(view, recomputer, in_flight_ms)
    comparison.run(answers)
    differs = bool(comparison.by_feature)
    return ParityReport(
        view=view,
        version=version,
        seed=seed,
        samples=Counter(one.kind for one in sampled),
        statuses=Counter(answer.served.status for answer in answers),
        values=len(answers) * len(view.features),
        differing=sum(comparison.by_feature.values()),
        differences=tuple(comparison.differences),
        in_flight=InFlightShare(
            in_flight_ms, comparison.lacking, comparison.missing, comparison.lag_ms
        ),
        as_of_ms=(min(instants), max(instants)),
        archive_wait_s=waited,
        seconds=time.monotonic() - began,
        by_feature=dict(comparison.by_feature),
        days_without_tiles=_days_without_tiles(settings, view, version) if differs else (),
    )


def _days_without_tiles(settings: Settings, view: ViewPlan, version: str) -> tuple[date, ...]:
    """Return the days before the newest tiles that have events and no tiles, ascending."""
    log = read_partition_log(settings, events_table(view.source.name))
    tiles = read_partition_log(settings, tiles_table(view.name, version))
    built = built_days(tiles, view.fingerprint)
    return tuple(
        day
        for day in sorted(built_days(log, view.source.fingerprint) - built)
        if view.start <= day < max(built, default=view.start) and log[day].rows
    )


def _version(settings: Settings, view: ViewPlan) -> str:
    version = deployed_version(settings, view)
    if version is None:
        raise DataError(
            f"the view {view.name} as declared was never built or deployed here",
            where=settings.lake,
            fix=f"millrace stream deploy {view.name}, or millrace backfill {view.name} …",
        )
    return version


def _look_up(
    url: str, view: ViewPlan, version: str, sampled: Sequence[SampledKey], seed: int
) -> list[_Answer]:
    """Ask in several requests, so that several instants are looked at; kinds are mixed."""
    shuffled = list(sampled)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a sample, not a secret
    answers = []
    for start in range(0, len(shuffled), _KEYS_AT_ONCE):
        keys = [one.key for one in shuffled[start : start + _KEYS_AT_ONCE]]
        batch = batch_lookup(url, view, version, keys)
        answers += [_Answer(entity, batch.as_of_ms) for entity in batch.entities]
    return answers


def _wait_for_archive(
    settings: Settings, view: ViewPlan, as_of_ms: int, progress: Progress, deadline_s: float
) -> float:
    """Wait until ``events/<source>`` holds all that arrived before an instant; returns seconds."""
    stream = view.source.stream
    if stream is None:
        return 0.0
    from resources.kafka import end_offsets, topic_exists

    bootstrap = kafka_bootstrap(settings)
    if not topic_exists(bootstrap, stream.topic):
        return 0.0
    began = time.monotonic()
    # The broker stamps a record when it appends it: behind the instant, none can come before it.
    time.sleep(max(0.0, as_of_ms / 1000 - time.time()) + _APPEND_SLACK_S)
    wanted = end_offsets(bootstrap, stream.topic)
    while behind := _events_behind(settings, view, stream.topic, wanted):
        waited = time.monotonic() - began
        if waited > deadline_s:
            raise EngineUnavailable(
                f"the archive of {view.source.name} is still {behind} events behind the answers "
                f"after {waited:.0f} s",
                where=f"events/{view.source.name}",
                fix="millrace status; millrace logs archive",
            )
        progress(f"{view.name}: waiting for the archive to pass {_iso(as_of_ms)}")
        time.sleep(_PAUSE_S)
    return time.monotonic() - began


def _events_behind(
    settings: Settings, view: ViewPlan, topic: str, wanted: Mapping[int, int]
) -> int:
    passed = read_markers(open_table(settings, f"events/{view.source.name}"), topic)
    return sum(max(0, end - passed.get(number, 0)) for number, end in wanted.items())


class _Comparison:
    """Compares answers one by one, and keeps count."""

    def __init__(self, view: ViewPlan, recomputer: Recomputer, allowed_ms: int) -> None:
        self._view, self._recomputer, self._allowed_ms = view, recomputer, allowed_ms
        self.differences: list[Difference] = []
        self.by_feature: Counter[str] = Counter()
        self.lacking = self.missing = self.lag_ms = 0

    def run(self, answers: Sequence[_Answer]) -> None:
        asked = [(answer.served.key, answer.as_of_ms) for answer in answers]
        for answer, whole in zip(answers, self._recomputer.at(asked), strict=True):
            found = self._differences(answer, whole)
            if found and not self._was_in_flight(answer):
                self.by_feature.update(d.feature for d in found)
                self.differences += found[: _SHOWN - len(self.differences)]

    def _was_in_flight(self, answer: _Answer) -> bool:
        young = self._recomputer.in_flight(answer.served.key, answer.as_of_ms, self._allowed_ms)
        for missing, without in young.guesses():
            if not self._differences(answer, without):
                self.lacking += 1
                self.missing += len(missing)
                oldest_ms = min(young.arrivals[i] for i in missing)
                self.lag_ms = max(self.lag_ms, answer.as_of_ms - oldest_ms)
                return True
        return False

    def _differences(self, answer: _Answer, truth: Recomputed) -> list[Difference]:
        served = answer.served
        found = []
        for feature in self._view.features:
            name, one = feature.name, served.features[feature.name]
            pairs = [("ts", one.ts_ms, truth.ts_ms[name])]
            if not is_same(feature, one.value, truth.values[name]):
                pairs = [("value", one.value, truth.values[name])]
            found += [
                Difference(name, served.key, answer.as_of_ms, what, got, wanted)
                for what, got, wanted in pairs
                if what == "value" or got != wanted
            ]
        return found


def is_same(feature: FeaturePlan, served: Any, recomputed: Any) -> bool:
    """Compare two values of a feature: exactly, but where doubles are added to a relative 1e-9.

    Averages, variances and sums of doubles depend on the order of addition, which engines do not
    share; a tiny absolute difference is let pass besides, for sums that cancel out.
    """
    if served is None or recomputed is None:
        return served is recomputed
    if feature.type.kind == "float64" and feature.aggregate in _ADDED:
        return math.isclose(served, recomputed, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return bool(served == recomputed)


def _iso(instant_ms: int | None) -> str | None:
    if instant_ms is None:
        return None
    text = datetime.fromtimestamp(instant_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
