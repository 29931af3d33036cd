"""Served answers held against the lake: what ``millrace parity`` and the asset check do.

Answers are taken over HTTP, as any client gets them. When the archive has passed the instant that
an answer names, the lake holds every event that was known then, and the answer can be recomputed.
The rule for events that were still under way is docs/parity.md.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from checks.parity.history_served import read_cut_over, served_history
from checks.parity.recomputing import Recomputed, Recomputer, plain_values
from checks.parity.report import Difference, InFlightShare, ParityReport, iso_text
from checks.parity.sampling import SampledKey, sample_keys, unlikely_key
from millrace.aggregates import TOLERANCES, Agreement
from millrace.errors import DataError, EngineUnavailable
from millrace.names import events_table
from millrace.plan import DerivedPlan, Output, Plan, ViewPlan
from millrace.types import FLOAT64
from offline.tables.history import find_history
from resources.endpoints import kafka_bootstrap, server_url
from resources.lake.delta import open_table
from resources.lake.offset_ledger import read_markers
from resources.lake.view_versions import deployed_version
from resources.online_api import ServedEntity, batch_lookup
from resources.progress import Progress
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

IN_FLIGHT_MS = 5_000
"""An event that arrived at most this long before an answer may be missing from it."""

ARCHIVE_DEADLINE_S = 120.0
DEFAULT_SAMPLES = 200

_KEYS_AT_ONCE = 50
_PAUSE_S = 0.25
_APPEND_SLACK_S = 0.05
_SHOWN = 50
_ABSOLUTE = 1e-12


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
    instant_ms = batch_lookup(url, view, version, [unlikely_key(view, seed)]).as_of_ms
    history = find_history(settings, view, _instants([instant_ms]))
    served = served_history(settings, view, version, history)
    sample = sample_keys(settings, history, samples, seed, served)
    progress(f"{view.name} {version}: looking up {len(sample.keys)} entities")
    answers = _look_up(url, view, version, sample.keys, seed)
    instants = [answer.as_of_ms for answer in answers]
    waited = _wait_for_archive(settings, view, max(instants), progress, deadline_s)
    progress(f"{view.name} {version}: recomputing {len(answers)} answers")
    recomputer = Recomputer(
        settings,
        view,
        [one.key for one in sample.keys],
        instants,
        # What only uploads bring into the store ends where they do.
        until_ms=read_cut_over(settings, view) if view.source.stream is None else None,
    )
    comparison = _Comparison(view, recomputer, in_flight_ms)
    comparison.run(answers)
    return ParityReport(
        view=view,
        version=version,
        seed=seed,
        samples=Counter(one.kind for one in sample.keys),
        statuses=Counter(answer.served.status for answer in answers),
        values=len(answers) * len(view.outputs),
        differing=sum(comparison.by_feature.values()),
        differences=tuple(comparison.differences),
        in_flight=InFlightShare(
            in_flight_ms, comparison.lacking, comparison.missing, comparison.lag_ms
        ),
        as_of_ms=(min(instants), max(instants)),
        archive_wait_s=waited,
        seconds=time.monotonic() - began,
        by_feature=dict(comparison.by_feature),
        known=sample.known,
        history=served,
        features_without_value=tuple(
            f.name for f in view.outputs if f.name not in comparison.with_value
        ),
    )


def _instants(instants_ms: Sequence[int]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(instants_ms, pa.int64())


def _version(settings: Settings, view: ViewPlan) -> str:
    version = deployed_version(settings, view)
    if version is None:
        raise DataError(
            f"the view {view.name} as declared was never built or deployed here",
            where=settings.lake,
            fix=f"millrace backfill {view.name} …, then millrace "
            + ("upload " if view.source.stream is None else "stream deploy ")
            + view.name,
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
    from resources.kafka.client import end_offsets, topic_exists

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
                where=events_table(view.source.name),
                fix="millrace status; millrace logs archive",
            )
        progress(f"{view.name}: waiting for the archive to pass {iso_text(as_of_ms)}")
        time.sleep(_PAUSE_S)
    return time.monotonic() - began


def _events_behind(
    settings: Settings, view: ViewPlan, topic: str, wanted: Mapping[int, int]
) -> int:
    passed = read_markers(open_table(settings, events_table(view.source.name)), topic)
    return sum(max(0, end - passed.get(number, 0)) for number, end in wanted.items())


class _Comparison:
    """Compares answers one by one, and keeps count."""

    def __init__(self, view: ViewPlan, recomputer: Recomputer, allowed_ms: int) -> None:
        self._view, self._recomputer, self._allowed_ms = view, recomputer, allowed_ms
        self.differences: list[Difference] = []
        self.by_feature: Counter[str] = Counter()
        self.with_value: set[str] = set()
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
        for feature in self._view.outputs:
            name, one = feature.name, served.features[feature.name]
            if one.value or truth.values[name]:
                self.with_value.add(name)
            pairs = [("ts", one.ts_ms, truth.ts_ms[name])]
            if not is_equal(self._view, feature, served, answer.as_of_ms, truth.values[name]):
                pairs = [("value", one.value, truth.values[name])]
            found += [
                Difference(name, served.key, answer.as_of_ms, what, got, wanted)
                for what, got, wanted in pairs
                if what == "value" or got != wanted
            ]
        return found


def is_equal(
    view: ViewPlan, feature: Output, served: ServedEntity, as_of_ms: int, recomputed: Any
) -> bool:
    """Progress whether a served value is the recomputed one; see ``is_same``.

    A derived one may instead be that of the inputs served with it. These are compared themselves,
    and a difference in their last digits may become any difference in what is derived of them.
    """
    value = served.features[feature.name].value
    if is_same(feature, value, recomputed):
        return True
    if not isinstance(feature, DerivedPlan) or not feature.inputs:
        return False
    return is_same(feature, value, _derived_of_served(view, feature, served, as_of_ms))


def _derived_of_served(
    view: ViewPlan, feature: DerivedPlan, served: ServedEntity, as_of_ms: int
) -> Any:
    import pyarrow as pa

    from millrace.kernel.derived import derive
    from millrace.values.arrow import array_of

    inputs = {
        name: array_of([served.features[name].value], view.output(name).type)
        for name in feature.inputs
    }
    query_ms = pa.chunked_array([[as_of_ms]], pa.int64())
    values = derive([feature], pa.table(inputs), query_ms)
    return plain_values(values.column(feature.name))[0]


def is_same(feature: Output, served: Any, recomputed: Any) -> bool:
    """Compare two values of a feature: exactly, but where doubles are added as far as engines agree.

    Averages, variances and sums of doubles depend on the order of addition, which engines do not
    share; a tiny absolute difference is let pass besides, for sums that cancel out. So it is with
    derived doubles.
    """
    if served is None or recomputed is None:
        return served is recomputed
    agreement: Agreement = "rounded" if feature.type == FLOAT64 else "exact"
    if not isinstance(feature, DerivedPlan):
        agreement = feature.aggregate.agreement
    if agreement == "exact":
        return bool(served == recomputed)
    one, other = ([v] if isinstance(v, float) else v for v in (served, recomputed))
    is_close = partial(math.isclose, rel_tol=TOLERANCES[agreement], abs_tol=_ABSOLUTE)
    return len(one) == len(other) and all(map(is_close, one, other))
