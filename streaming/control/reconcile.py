"""What has to be done so that the streams are as wanted: a pure function over what is known.

Desired state are the records and the declarations; actual state is what Flink and the store say.
The same decisions serve Dagster's sensor and the tests' tables; nothing here looks at a clock or
opens anything. At most one action per view comes out at a time, the most urgent first, and an
action that was overtaken by events is a no-op when it is performed.

Source of the form: the reconcilers of Kubernetes controllers, level-triggered and stateless.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from streaming.publications.records import StreamRecord

ActionKind = Literal[
    "cancel_twins",
    "stop",
    "withdraw",
    "restore",
    "restore_previous",
    "publish",
    "upload",
    "upgrade",
    "promote",
    "retire",
    "finish",
]

ENDED = frozenset({"FAILED", "FINISHED", "CANCELED", "SUSPENDED"})
"""States of a Flink job that will not run again by itself."""

RETIRE_AFTER_MS = 600_000
"""Servers and writers see a new publication within seconds; this is for those that were away."""


@dataclass(frozen=True)
class JobFacts:
    """What Flink says of one job.

    Attributes:
        state: Flink's own word; None if it does not know the job.
        is_running: the job and every task of it run.
    """

    state: str | None = None
    is_running: bool = False

    @property
    def is_alive(self) -> bool:
        """True unless it ended or is unknown; it may still be starting or restarting."""
        return self.state is not None and self.state not in ENDED

    @property
    def hindrance(self) -> str | None:
        """Why the job does not read, in a word; None if it does."""
        return None if self.is_running else (self.state or "unknown to Flink")


@dataclass(frozen=True)
class PublishedFacts:
    """What the store's publication says of a view.

    Attributes:
        fingerprints: of the versions that are published.
        cut_over_ms: by fingerprint; None where no batch tiles are claimed.
        serving: the version that answers lookups; None while none is complete.
    """

    fingerprints: frozenset[str] = frozenset()
    cut_over_ms: Mapping[str, int | None] = field(default_factory=dict)
    serving: str | None = None


@dataclass(frozen=True)
class StreamFacts:
    """What is known of one view's stream.

    Attributes:
        twins: earlier submissions that live beside the recorded ones.
        published: None if the store has no publication of the view.
        is_store_known: False if the store did not answer: then nothing is concluded from it.
        is_complete: the newest version holds all that the serving one does.
        progress_ms: everything that was sent before is in the store; None if that is not known.
        is_busy: somebody acts on the stream at this moment.
    """

    job: JobFacts = field(default_factory=JobFacts)
    previous: JobFacts = field(default_factory=JobFacts)
    twins: tuple[str, ...] = ()
    published: PublishedFacts | None = None
    is_store_known: bool = True
    is_complete: bool = False
    progress_ms: int | None = None
    is_busy: bool = False


@dataclass(frozen=True)
class Closing:
    """When a closed source ends, epoch milliseconds.

    Attributes:
        end_ms: no event is of a later instant.
        over_ms: none that arrives later counts, being late.
    """

    end_ms: int
    over_ms: int


@dataclass(frozen=True)
class Declared:
    """What the declarations say of a view that has a record.

    Attributes:
        fingerprint: its meaning; None if it is declared no more.
        is_known: False where the declarations cannot tell: a file with a fault, or a folder that
            this process does not read. Nothing is stopped for that.
        closing: None while its source goes on.
    """

    fingerprint: str | None = None
    is_known: bool = True
    closing: Closing | None = None


@dataclass(frozen=True)
class Action:
    """One thing to do about one view.

    Attributes:
        generation: of the record that was decided on; a later one makes the action void.
        reason: for the log and the UI.
    """

    kind: ActionKind
    view: str
    fingerprint: str
    generation: int
    reason: str = field(compare=False)

    @property
    def key(self) -> str:
        """The identity of the decision: ``restore|spend|0123456789abcdef|3``."""
        return "|".join((self.kind, self.view, self.fingerprint, str(self.generation)))

    def to_json(self) -> dict[str, Any]:
        """Return the action as plain values; ``Action(**document)`` reads it."""
        return {
            "kind": self.kind,
            "view": self.view,
            "fingerprint": self.fingerprint,
            "generation": self.generation,
            "reason": self.reason,
        }


def decide(
    records: Mapping[str, StreamRecord],
    declared: Mapping[str, Declared],
    facts: Mapping[str, StreamFacts],
    now_ms: int,
) -> list[Action]:
    """Return what has to be done, at most one action per view, in the order of the records.

    Args:
        records: by view.
        declared: by view; one that is absent here is declared no more.
        facts: by view; a view without facts is passed over.
        now_ms: epoch milliseconds.
    """
    return [
        action
        for view, record in records.items()
        if view in facts and not facts[view].is_busy
        for action in _decide_one(record, declared.get(view, Declared()), facts[view], now_ms)[:1]
    ]


def _decide_one(
    record: StreamRecord, declared: Declared, facts: StreamFacts, now_ms: int
) -> Sequence[Action]:
    """Return everything that has to be done about one view, the most urgent first."""
    if facts.twins:
        return [_action("cancel_twins", record, "a superseded job of the view still runs")]
    if declared.is_known and declared.fingerprint is None:
        return _undeclared(record, facts)
    if record.desired == "stopped":
        return _stopped(record, facts)
    is_changed = declared.is_known and declared.fingerprint != record.fingerprint
    if is_changed:
        # The old version goes on as it is; if it is down, the new one takes its place anyway.
        reason = f"the declaration changed: {record.fingerprint} to {declared.fingerprint}"
        return [*_supervised(record, facts, now_ms), _action("upgrade", record, reason)]
    return [
        *_supervised(record, facts, now_ms),
        *_published(record, facts),
        *_promoted(record, facts),
        *_retired(record, now_ms),
        *_finished(record, declared, facts),
    ]


def _undeclared(record: StreamRecord, facts: StreamFacts) -> list[Action]:
    lives = facts.job.is_alive or facts.previous.is_alive
    is_published = facts.is_store_known and facts.published is not None
    if lives or is_published:
        return [_action("withdraw", record, "the view is declared no more")]
    return []


def _stopped(record: StreamRecord, facts: StreamFacts) -> list[Action]:
    if facts.job.is_alive or facts.previous.is_alive:
        return [_action("stop", record, "the stream was stopped, and its job still runs")]
    return _published(record, facts)


def _supervised(record: StreamRecord, facts: StreamFacts, now_ms: int) -> list[Action]:
    found = []
    older = record.previous
    # The version that serves comes first.
    if older is not None and older.desired == "running":
        reason = _needs_restoring(older, facts.previous, now_ms)
        found += [_action("restore_previous", record, reason)] if reason else []
    reason = _needs_restoring(record, facts.job, now_ms)
    found += [_action("restore", record, reason)] if reason else []
    return found


def _needs_restoring(record: StreamRecord, job: JobFacts, now_ms: int) -> str:
    """Say why a job must be submitted again now; empty if it must not."""
    if job.is_alive or record.is_circuit_open or now_ms < record.not_before_ms:
        return ""
    if job.state is None:
        return f"Flink does not know {record.version}'s job {record.job_id}"
    return f"{record.version}'s job {record.job_id} is {job.state}"


def _published(record: StreamRecord, facts: StreamFacts) -> list[Action]:
    if not facts.is_store_known:
        return []
    if facts.published is None or record.fingerprint not in facts.published.fingerprints:
        return [_action("publish", record, "the store has no publication of this version")]
    serving = (record.previous or record).version
    if facts.published.serving != serving:
        # Whoever promoted it was cut off between the record and the store.
        found = facts.published.serving or "none"
        return [_action("publish", record, f"the store names {found} as serving, not {serving}")]
    if (
        record.cut_over_ms is not None
        and facts.published.cut_over_ms.get(record.fingerprint) is None
    ):
        return [_action("upload", record, "the store lost the batch tiles of this version")]
    return []


def _promoted(record: StreamRecord, facts: StreamFacts) -> list[Action]:
    if record.previous is None or not facts.is_complete:
        return []
    versions = f"{record.version} instead of {record.previous.version}"
    return [_action("promote", record, f"complete, and serves from now on: {versions}")]


def _retired(record: StreamRecord, now_ms: int) -> list[Action]:
    due = [old for old in record.retired if now_ms - old.retired_at_ms >= RETIRE_AFTER_MS]
    if not due:
        return []
    versions = ", ".join(old.version for old in due)
    return [_action("retire", record, f"{versions} served last {RETIRE_AFTER_MS // 1000} s ago")]


def _finished(record: StreamRecord, declared: Declared, facts: StreamFacts) -> list[Action]:
    """A job of a closed source is stopped once no event can come that it would count.

    Before that, what was uploaded must go up to the end: from there on the lake alone can fill the
    store again.
    """
    closing = declared.closing
    if closing is None or not declared.is_known or record.previous is not None:
        return []
    is_read = facts.progress_ms is not None and facts.progress_ms >= closing.over_ms
    is_stored = record.cut_over_ms is None or record.cut_over_ms >= closing.end_ms
    if not (facts.job.is_alive and is_read and is_stored):
        return []
    return [_action("finish", record, "its source is closed, and its topic read past the end")]


def _action(kind: ActionKind, record: StreamRecord, reason: str) -> Action:
    return Action(kind, record.view, record.fingerprint, record.generation, reason)
