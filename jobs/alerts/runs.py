"""What Dagster's runs say: checks, partitions built or not, and runs that failed.

Runs are found by the time of their last update, never by the ids of events: on Postgres ids are
committed out of order, on SQLite every run has a file and numbers of its own. A run is read once it
has ended, whole; reading it again gives the same facts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.events import AssetMaterializationPlannedData

from alerts.facts import SEVERITIES, WHOLE, Fact, Story, Subject
from checks.history import HISTORY
from feature_assets.reporting import what_was_raised
from jobs.batch.arrivals import ARRIVAL
from jobs.instance.run_states import ENDED
from millrace.calendar import EPOCH_INSTANT
from resources.dagster.client import ASSET_JOB, FAILURES, WILL_RETRY
from resources.dagster.partition_keys import key_day

OVERLAP = timedelta(minutes=5)
"""Updates that commit late, or carry the time of a slower clock, are seen within this."""

_TYPES = {
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}
_PAGE = 5_000
_MOST_AWAITED = 5_000
_MOST_NAMED = 5
_DETAILS = 8
_VALUE_LENGTH = 200
_HELD = "held back"
_VIEW_TAG = "millrace.view/"

_Partition = tuple[str, str]
"""An asset and one of its partitions; ``-`` for an asset that has none."""


@dataclass(frozen=True)
class Update:
    """A run that ended, as of one update of it."""

    run: dg.DagsterRun
    at: datetime

    @property
    def at_us(self) -> int:
        """When it was updated, epoch microseconds."""
        return epoch_us(self.at)


def ended_runs(instance: dg.DagsterInstance, after: datetime, limit: int) -> list[Update]:
    """Return runs that ended: all that were updated within the overlap, and ``limit`` after it.

    Args:
        instance: where they are.
        after: position of the watcher.
        limit: counts only what is new, so that a busy overlap cannot keep the position from moving.
    """

    def read(filters: dg.RunsFilter, most: int | None) -> list[Update]:
        records = instance.get_run_records(
            filters, limit=most, order_by="update_timestamp", ascending=True
        )
        return [Update(one.dagster_run, _aware(one.update_timestamp)) for one in records]

    recent = dg.RunsFilter(
        statuses=list(ENDED), updated_after=after - OVERLAP, updated_before=after + _TICK
    )
    found = {one.run.run_id: one for one in read(recent, None)}
    for one in read(dg.RunsFilter(statuses=list(ENDED), updated_after=after), limit):
        found.setdefault(one.run.run_id, one)
    return sorted(found.values(), key=lambda one: one.at)


_TICK = timedelta(microseconds=1)


def epoch_us(instant: datetime) -> int:
    """Return an instant as epoch microseconds, exactly."""
    return (instant - EPOCH_INSTANT) // _TICK


def from_epoch_us(instant_us: int) -> datetime:
    """Return epoch microseconds as an instant, UTC."""
    return EPOCH_INSTANT + instant_us * _TICK


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def run_facts(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[Fact]:
    """Return what an ended run says. One that Dagster starts once more is left to its successor."""
    told = _Told.read(instance, run)
    facts = [*told.checks(), *told.partitions()]
    if run.status is dg.DagsterRunStatus.SUCCESS:
        facts.append(told.run_fact(is_ok=True))
    elif run.status is dg.DagsterRunStatus.FAILURE and not (told.is_explained or _is_retried(run)):
        facts.append(told.run_fact(is_ok=False))
    return facts


def runless_facts(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> list[Fact]:
    """Return the newest evaluation of each check that was reported outside of any run."""
    from dagster._core.storage.asset_check_execution_record import (
        COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as COMPLETED,
    )

    if not keys:
        return []
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    facts: list[Fact] = []
    for record in newest.values():
        evaluation = record.evaluation if record.status in COMPLETED else None
        if evaluation is not None and record.event is not None and not record.run_id:
            facts += check_facts(evaluation, _ms(record.event.timestamp), str(record.id), "")
    return facts


def check_facts(
    evaluation: dg.AssetCheckEvaluation, at_ms: int, origin: str, run_id: str
) -> list[Fact]:
    """Return one fact per severity: a failed warning is no failed error, and the other way round.

    None of how a history stands: what follows from a failed day, or from a change that somebody has
    just made, is told as that. None of ``arrival``, which ``alert_days`` tells as ``late``.
    """
    if evaluation.check_name in {HISTORY, ARRIVAL}:
        return []
    name = evaluation.asset_key.to_user_string()
    partition = evaluation.partition or WHOLE
    subject = Subject("check", name, evaluation.check_name, partition)
    failed_as = None if evaluation.passed else evaluation.severity.value.lower()
    shown = {
        key: text
        for key, value in evaluation.metadata.items()
        if key not in {"owner", "runbook"} and (text := _plain(value))
    }
    owners, runbook = responsible(evaluation.metadata)
    story = Story(
        summary=evaluation.description or ("passed" if evaluation.passed else "failed"),
        details=dict(list(shown.items())[:_DETAILS]),
        owners=owners,
        run_id=run_id,
        runbook=runbook,
    )
    return [
        Fact(subject, severity, failed_as != severity, at_ms, story, origin)
        for severity in SEVERITIES
    ]


def responsible(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the owners and the runbook that a check or its evaluation names.

    Several owners are separated by commas; a runbook may be Markdown's ``<https://…>``.
    """
    owners = [owner.strip() for owner in _plain(metadata.get("owner", "")).split(",")]
    runbook = (_plain(metadata.get("runbook", "")).split() or [""])[0]
    return tuple(owner for owner in owners if owner), runbook.strip("<>")


def _plain(value: Any) -> str:
    """Return a short metadata value as text; pictures, tables and long texts are left out."""
    raw = getattr(value, "value", value)
    if isinstance(raw, float):
        return f"{raw:g}"
    if isinstance(raw, (str, int, bool)) and len(str(raw)) <= _VALUE_LENGTH:
        return str(raw)
    return ""


@dataclass
class _Told:
    """The events of one run, sorted by what they are about.

    Attributes:
        evaluations: each with its time and its place in the run.
        built: partitions that were materialised, and when.
        planned: partitions that were to be.
        named: partitions that failed by name: why, and when.
        errors: failed steps that name no partition; the run itself under the empty name.
    """

    run: dg.DagsterRun
    ended_ms: int
    evaluations: list[tuple[dg.AssetCheckEvaluation, int, str]] = field(default_factory=list)
    built: dict[_Partition, int] = field(default_factory=dict)
    planned: set[_Partition] = field(default_factory=set)
    planned_checks: set[tuple[str, str]] = field(default_factory=set)
    named: dict[_Partition, tuple[str, int]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, instance: dg.DagsterInstance, run: dg.DagsterRun) -> "_Told":
        record = instance.get_run_record_by_id(run.run_id)
        ended_s = record.end_time if record is not None else None
        told = cls(run, _ms(ended_s or 0))
        for number, entry in enumerate(_entries(instance, run.run_id)):
            if entry.dagster_event is not None:
                told._take(entry.dagster_event, _ms(entry.timestamp), number)
        return told

    @property
    def is_explained(self) -> bool:
        """True if everything that went wrong are partitions that failed by name."""
        return bool(self.named) and not any(step for step in self.errors)

    def _take(self, event: dg.DagsterEvent, at_ms: int, number: int) -> None:
        kind, data = event.event_type, event.event_specific_data
        types = dg.DagsterEventType
        if kind is types.ASSET_CHECK_EVALUATION:
            origin = f"{self.run.run_id}/{number:08d}"
            self.evaluations.append((event.asset_check_evaluation_data, at_ms, origin))
        elif isinstance(data, AssetCheckEvaluationPlanned):
            self.planned_checks.add((data.asset_key.to_user_string(), data.check_name))
        elif kind is types.ASSET_MATERIALIZATION and event.asset_key is not None:
            self.built[event.asset_key.to_user_string(), event.partition or WHOLE] = at_ms
        elif isinstance(data, AssetMaterializationPlannedData):
            subset = data.partitions_subset
            keys = subset.get_partition_keys() if subset else [data.partition or WHOLE]
            self.planned |= {(data.asset_key.to_user_string(), key) for key in keys}
        elif kind is types.STEP_FAILURE:
            self._take_failure(event, at_ms)
        elif kind is types.RUN_FAILURE:
            self.errors[""] = event.message or "the run failed"

    def _take_failure(self, event: dg.DagsterEvent, at_ms: int) -> None:
        failure = event.step_failure_data
        told = failure.user_failure_data
        named: Any = (told.metadata or {}).get(FAILURES) if told is not None else None
        if named is None:
            error = told.description if told is not None and told.description else ""
            self.errors[event.step_key or "step"] = error or what_was_raised(failure.error)
            return
        # Each table is a step: what one names failed in another step of the same run, before it.
        tables = {name for name, _ in self.planned} | named.value.keys()
        for name, partitions in named.value.items():
            for partition, reason in partitions.items():
                if not _is_inherited(reason, tables):
                    self.named[name, partition] = (reason, at_ms)

    def checks(self) -> Iterator[Fact]:
        """Yield what was judged; a check's result over all days counts only if no day has one."""
        by_day = {
            (one.asset_key, one.check_name)
            for one, _, _ in self.evaluations
            if one.partition is not None
        }
        for one, at_ms, origin in self.evaluations:
            if one.partition is not None or (one.asset_key, one.check_name) not in by_day:
                yield from check_facts(one, at_ms, origin, self.run.run_id)

    def partitions(self) -> Iterator[Fact]:
        """Yield which partitions were built, and which failed by name.

        One that was held back for a check is left to that check's own alert.
        """
        failed_checks = {
            (one.asset_key.to_user_string(), key_day(one.partition))
            for one, _, _ in self.evaluations
            if one.partition and not one.passed and one.severity is dg.AssetCheckSeverity.ERROR
        }
        for (name, partition), at_ms in self.built.items():
            yield self._partition(name, partition, at_ms, "it was built", is_ok=True)
        for (name, partition), (reason, at_ms) in self.named.items():
            if not (reason.startswith(_HELD) and (name, key_day(partition)) in failed_checks):
                yield self._partition(name, partition, at_ms, reason, is_ok=False)

    def _partition(
        self, name: str, partition: str, at_ms: int, summary: str, *, is_ok: bool
    ) -> Fact:
        details = {"job": self._job}
        if not is_ok:
            # Nobody reads a day whose newest build failed, whatever stood there before.
            details["readers"] = f"do not see {partition} of {name} until it is built"
        story = Story(summary, details, run_id=self.run.run_id)
        subject = Subject("partition", name, "", partition)
        return Fact(subject, "error", is_ok, at_ms, story, self.run.run_id)

    def run_fact(self, *, is_ok: bool) -> Fact:
        """Return how the run itself ended.

        A failure ends when a run of the same job and range succeeds, or once everything that it
        should have built, or judged, was built or judged by other runs.
        """
        subject = Subject("run", self._job, "", _scope(self.run.tags))
        if is_ok:
            story = Story("a run succeeded", run_id=self.run.run_id)
            return Fact(subject, "error", is_ok, self.ended_ms, story, self.run.run_id)
        steps = {step: error for step, error in self.errors.items() if step} or self.errors
        details = {f"step {step}" if step else "run": e for step, e in steps.items()}
        story = Story(
            next(iter(steps.values()), "the run failed").splitlines()[0],
            dict(list(details.items())[:_MOST_NAMED]),
            run_id=self.run.run_id,
        )
        awaited = self._awaited()
        awaits = awaited if len(awaited) <= _MOST_AWAITED else ()
        origin = self.run.run_id
        return Fact(subject, "error", is_ok, self.ended_ms, story, origin, awaits=awaits)

    def _awaited(self) -> list[str]:
        left = self.planned - set(self.built) - set(self.named)
        if self.planned:
            return [Subject("partition", name, "", key).key for name, key in sorted(left)]
        judged = {
            (one.asset_key.to_user_string(), one.check_name) for one, _, _ in self.evaluations
        }
        unjudged = sorted(self.planned_checks - judged)
        return [Subject("check", name, check).key for name, check in unjudged]

    @property
    def _job(self) -> str:
        """The job; for a choice of assets from the UI, the assets."""
        if not self.run.job_name.startswith(ASSET_JOB):
            return self.run.job_name
        assets = {name for name, _ in self.planned | self.planned_checks}
        named = sorted(assets or {key.to_user_string() for key in self.run.asset_selection or ()})
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        return ", ".join(named[:_MOST_NAMED]) + more or self.run.job_name


def _is_retried(run: dg.DagsterRun) -> bool:
    return run.tags.get(WILL_RETRY) == "true"


def _is_inherited(reason: str, tables: Iterable[str]) -> bool:
    """Say whether a day failed only because it failed upstream, in the same run."""
    return any(reason.startswith(f"{name} failed: ") for name in tables)


def _scope(tags: Mapping[str, str]) -> str:
    """Return what a run is limited to: a partition, a range of them, the views it acts on."""
    start = tags.get("dagster/asset_partition_range_start")
    if start is not None:
        return f"{start}..{tags.get('dagster/asset_partition_range_end', '')}"
    views = sorted(tag.removeprefix(_VIEW_TAG) for tag in tags if tag.startswith(_VIEW_TAG))
    return tags.get("dagster/partition") or ", ".join(views) or WHOLE


def _entries(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.EventLogEntry]:
    cursor = None
    while True:
        page = instance.get_records_for_run(run_id, cursor, of_type=_TYPES, limit=_PAGE)
        for record in page.records:
            yield record.event_log_entry
        if not page.has_more:
            return
        cursor = page.cursor


def _ms(instant_s: float) -> int:
    return int(instant_s * 1000)
