"""A view's Flink job as it is submitted: its text, its identity, its topics, and where it begins.

One rule for every submission: a new generation, hence a job id that Flink never saw, begun from the
newest state that an identical definition left behind, else from the beginning of the topic. Flink
would restore state into another query without a word, so "identical" is the text itself, not a
promise; and beginning anew is always right, for the store takes no tile that counts fewer events
than the one it holds.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.compile.flink import FlinkEndpoints, job_id, stream_job
from millrace.durations import DAY_MS, MINUTE_MS
from millrace.errors import EngineError, EngineRejected, EngineUnavailable, UnsupportedByEngine
from millrace.names import dead_letter_topic, flink_group, tile_topic
from millrace.plan import StreamPlan, ViewPlan
from resources.progress import Progress
from streaming.control import lineage
from streaming.control.slots import ensure_slots
from streaming.engines import Engines
from streaming.publications.checkpoints import drop_checkpoints, is_there
from streaming.publications.publishing import require_online, serving_of
from streaming.publications.records import JobDefinition, StreamRecord, backoff_ms

if TYPE_CHECKING:
    from resources.kafka.client import Topic

Save = Callable[[StreamRecord], StreamRecord]

BROKERS = "${MILLRACE_KAFKA}"
"""Stands in recorded scripts for the brokers, their address and what they ask for: both may change,
the job does not, and no record holds a password."""

_RESTARTS = {
    # Flink's default tries for ever. A job that cannot go on must say so, to be looked at. These
    # are the settings of the stack's own Flink; a user's may have others.
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "1 s",
    "restart-strategy.exponential-delay.max-backoff": "10 s",
    "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "30 s",
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": "10",
}
_OUTAGE_MS = FlinkEndpoints().outage_ms
_KEPT_GENERATIONS = 2
_TILE_PARTITIONS = 4


def new_record(engines: Engines, view: ViewPlan, version: str, generation: int) -> StreamRecord:
    """Return the record of a version that was never submitted.

    Raises:
        UnsupportedByEngine: no Flink job can do what the view says.
    """
    return StreamRecord(
        view=view.name,
        desired="running",
        version=version,
        fingerprint=view.fingerprint,
        definition=definition_of(engines, view),
        serving=serving_of(view),
        source_topic=stream_of(view).topic,
        tile_topic=tile_topic(view),
        flink_group=flink_group(view),
        folders=tuple(str(folder) for folder in engines.settings.views),
        generation=generation,
        job_id=job_id(view, version, generation),
        submitted_at_ms=0,
        catch_up={str(p): o for p, o in engines.end_offsets(stream_of(view).topic).items()},
    )


def stream_of(view: ViewPlan) -> StreamPlan:
    """Return the stream of a view's source.

    Raises:
        PlanError: the view is kept offline.
        UnsupportedByEngine: the source has none.
    """
    require_online(view)
    if view.source.stream is None:
        raise UnsupportedByEngine(
            f"source {view.source.name!r} has no stream, so no job can feed the view",
            where=f"view {view.name}",
            fix=f"millrace upload {view.name}, which publishes it; or give the source "
            "`stream: {topic: …, format: json}`",
        )
    return view.source.stream


def definition_of(engines: Engines, view: ViewPlan) -> JobDefinition:
    """Compile a view's job as it is submitted today.

    Raises:
        UnsupportedByEngine: no Flink job can do what the view says.
    """
    job = stream_job(view, FlinkEndpoints(bootstrap_servers=BROKERS, tile_topic=tile_topic(view)))
    return JobDefinition(job.script, dict(job.configuration), _identity(engines.runner_jar()))


def _identity(jar: Path) -> str:
    return hashlib.sha256(jar.read_bytes()).hexdigest()[:16]


def topics_of(view: ViewPlan) -> "list[Topic]":
    """Return the topics that a view's stream needs: the source's, its dead letters, the tiles.

    Raises:
        UnsupportedByEngine: the source has no stream.
    """
    from resources.kafka.client import SOURCE_PARTITIONS, Topic

    source = stream_of(view).topic
    arrival = {"message.timestamp.type": "LogAppendTime"}
    reach_ms, lateness_ms = view.reach_ms, view.source.allowed_lateness_ms
    kept_ms = -1 if reach_ms is None else reach_ms + lateness_ms + 2 * DAY_MS
    tiles = {"cleanup.policy": "compact,delete", "retention.ms": str(kept_ms)}
    return [
        Topic(source, SOURCE_PARTITIONS, arrival),
        Topic(dead_letter_topic(source), SOURCE_PARTITIONS, {}),
        Topic(tile_topic(view), _TILE_PARTITIONS, tiles),
    ]


def submit(engines: Engines, record: StreamRecord, save: Save, progress: Progress) -> StreamRecord:
    """Submit the next generation of a stream; returns the record as it stands then.

    The record is saved before Flink is told, so that a submission whose answer is lost is known by
    its id. A refusal is a failure of the stream and counts as one; an engine that does not answer
    is not.

    Raises:
        EngineUnavailable: Flink does not answer.
        EngineError: Flink has no slot for the job, which is not submitted then, or refuses it.
        SetupError: Flink cannot be told what Kafka asks for.
    """
    ensure_slots(engines, record.view, record.parallelism, progress)
    script = engines.on_brokers(record.definition.script, BROKERS)
    jar = engines.runner_jar()
    now_ms = engines.now_ms()
    restore_from = restore_point(engines, record, _identity(jar))
    record = save(_next(engines, record, jar, restore_from, now_ms))
    progress(
        f"{record.view} {record.version}: job {record.job_id} of parallelism {record.parallelism}, "
        f"{_origin(restore_from)}"
    )
    lineage.stream_started(engines, record)
    try:
        engines.flink.run(
            engines.flink.ensure_jar(jar),
            script,
            record.job_id,
            {**record.definition.configuration, **_RESTARTS, **_marks(record)},
            record.parallelism,
            restore_from,
        )
    except EngineUnavailable:
        raise
    except EngineError as error:
        # Flink quotes what it refuses, and that holds what lets it into Kafka.
        what = engines.without_secrets(error.what)
        save(failed(record, what, now_ms))
        lineage.jobs_ended(engines.settings, [record.job_id], "FAIL", what)
        raise type(error)(what, where=error.where, fix=error.fix) from None
    return record


def _origin(restore_from: str | None) -> str:
    return f"from {restore_from}" if restore_from else "from the beginning of the topic"


def at_parallelism(engines: Engines, record: StreamRecord, parallelism: int) -> StreamRecord:
    """Return the record with another parallelism; its next job has it, from the same state.

    Raises:
        EngineRejected: not between 1 and the number of partitions of the source's topic.
    """
    partitions = len(engines.end_offsets(record.source_topic))
    if not 1 <= parallelism <= partitions:
        raise EngineRejected(
            f"the stream of {record.view} cannot have parallelism {parallelism}: the topic "
            f"{record.source_topic!r} has {partitions} partition(s), and each is read by one task",
            where=f"view {record.view}",
            fix=f"a number from 1 to {partitions}, or add partitions to the topic first",
        )
    return replace(record, parallelism=parallelism)


def failed(record: StreamRecord, cause: str, now_ms: int) -> StreamRecord:
    """Return the record with one more failure."""
    failures = record.failures_with(now_ms)
    return replace(
        record, failures=failures, error=cause, not_before_ms=now_ms + backoff_ms(len(failures))
    )


def _next(
    engines: Engines, record: StreamRecord, jar: Path, restore_from: str | None, now_ms: int
) -> StreamRecord:
    is_first = record.submitted_at_ms == 0
    generation = record.generation if is_first else record.generation + 1
    # The id of a home that was lost, or of a meaning that comes back, may have been used.
    while _is_used(engines, job := job_id(record, record.version, generation)):
        generation += 1
    earlier = () if is_first else _prune_checkpoints(engines, record)
    return replace(
        record,
        definition=replace(record.definition, jar=_identity(jar)),
        generation=generation,
        job_id=job,
        submitted_at_ms=now_ms,
        restores=earlier,
        restored_from=restore_from,
        not_before_ms=now_ms + backoff_ms(len(record.failures)),
    )


def _is_used(engines: Engines, job: str) -> bool:
    return (engines.checkpoints / job).exists() or engines.flink.job(job) is not None


def _marks(record: StreamRecord) -> dict[str, str]:
    """Return what tells a job's origin in Flink's own pages; it comes back from ``/config``."""
    marks = {
        "view": record.view,
        "version": record.version,
        "fingerprint": record.fingerprint,
        "generation": str(record.generation),
    }
    return {"pipeline.global-job-parameters": ",".join(f"{k}:{v}" for k, v in marks.items())}


def restore_point(engines: Engines, record: StreamRecord, jar: str) -> str | None:
    """Return the newest state that may be restored; None to begin at the topic's beginning.

    None also if the functions' jar is another now, or if the state is older than a day: tiles'
    state expires by the clock, and half-expired state would count less than the topic says.
    """
    if record.definition.jar != jar:
        return None
    for job in reversed(record.job_ids):
        found = _state_of(engines, record, job)
        if found is not None:
            path, taken_at_ms = found
            return path if engines.now_ms() - taken_at_ms < _OUTAGE_MS - MINUTE_MS else None
    return None


def _state_of(engines: Engines, record: StreamRecord, job: str) -> tuple[str, int] | None:
    from resources.flink.rest import newest_checkpoint

    savepoint = record.savepoint
    if savepoint is not None and savepoint.job_id == job and is_there(savepoint.path):
        return savepoint.path, savepoint.taken_at_ms
    path = newest_checkpoint(engines.checkpoints, job)
    if path is not None:
        return str(path), int((path / "_metadata").stat().st_mtime * 1000)
    if not engines.checkpoints.is_dir() and engines.flink.job(job) is not None:
        # A Flink of the user's own, which keeps its checkpoints elsewhere.
        report = engines.flink.checkpoints(job)
        if report.latest_path is not None and report.latest_ms is not None:
            return report.latest_path, report.latest_ms
    return None


def _prune_checkpoints(engines: Engines, record: StreamRecord) -> tuple[str, ...]:
    """Return the jobs whose state may still be needed, and remove the checkpoints of the others."""
    kept: list[str] = []
    with_state = 0
    for job in reversed(record.job_ids):
        if with_state == _KEPT_GENERATIONS:
            drop_checkpoints(engines, (job,))
        else:
            kept.insert(0, job)
            with_state += _state_of(engines, record, job) is not None
    return tuple(kept)
