"""What is wanted of each stream, and what was done about it: one JSON file per view.

``<home>/streams/<view>.json`` is the memory of the platform about a view's Flink job. It outlives
Flink, Dagster and the online store, so that each of them can be lost and put back from it. Whoever
changes a record holds the view's lock meanwhile; a reader needs none, for files are replaced whole.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from streaming.publications.view_files import ViewFiles

Desired = Literal["running", "stopped"]

OPENING_FAILURES = 5
"""So many failures within ``FAILURE_WINDOW_MS`` open the circuit: the stream is left alone."""
FAILURE_WINDOW_MS = 3_600_000
_FIRST_BACKOFF_MS = 15_000
_LONGEST_BACKOFF_MS = 900_000


@dataclass(frozen=True)
class Savepoint:
    """Where a job's state lies since it was stopped.

    Attributes:
        job_id: the job it was taken of.
        path: as Flink named it.
        taken_at_ms: epoch milliseconds.
    """

    job_id: str
    path: str
    taken_at_ms: int


@dataclass(frozen=True)
class JobDefinition:
    """What a job was submitted with; state is restored only into the same again.

    Attributes:
        script: its SQL, with ``BROKERS`` where the brokers' address belongs.
        configuration: the compiled settings.
        jar: identity of the runner jar's content.
    """

    script: str
    configuration: Mapping[str, str]
    jar: str


@dataclass(frozen=True)
class Retired:
    """A version that serves no more; its keys, topic and checkpoints wait to be dropped."""

    version: str
    fingerprint: str
    tile_topic: str
    job_ids: tuple[str, ...]
    retired_at_ms: int


@dataclass(frozen=True)
class StreamRecord:
    """One version's stream.

    Attributes:
        view: name of the feature view.
        desired: what was asked for.
        version: ``v1``, ``v2``, … by lake.
        fingerprint: the meaning; ``serving`` is the published plan of the same.
        definition: what its job is submitted with.
        folders: the folders of declarations it was deployed from.
        generation: grows by one with each submission, over all versions of the view, so that no
            job id comes twice.
        job_id: the newest submission; unknown to Flink until that has taken it.
        submitted_at_ms: when; epoch milliseconds.
        restores: earlier jobs of the same definition whose state may still be needed, oldest first.
        restored_from: the checkpoint or savepoint the job began with; None for the topic's
            beginning.
        catch_up: end offsets of the source topic when the version was first submitted: once they
            are behind, the version holds what the older one holds.
        savepoint: the newest one.
        previous: the older version that still serves, until this one is complete.
        retired: versions to be dropped.
        failures: instants of failures within an hour, newest last; kept until the stream is
            restarted by hand once there are five.
        error: the root cause of the last failure; empty if the last submission holds.
        not_before_ms: no restoration before.
        parallelism: of its jobs; a version begins with that of the one before it.
        cut_over_ms: the day edge before which the store holds batch tiles; None: none uploaded.
        sealed_before_ms: tiles before it were coarsened and take no more stream tiles.
    """

    view: str
    desired: Desired
    version: str
    fingerprint: str
    definition: JobDefinition
    serving: Mapping[str, Any]
    source_topic: str
    tile_topic: str
    flink_group: str
    folders: tuple[str, ...]
    generation: int
    job_id: str
    submitted_at_ms: int
    restores: tuple[str, ...] = ()
    restored_from: str | None = None
    catch_up: Mapping[str, int] = field(default_factory=dict)
    savepoint: Savepoint | None = None
    previous: "StreamRecord | None" = None
    retired: tuple[Retired, ...] = ()
    failures: tuple[int, ...] = ()
    error: str = ""
    not_before_ms: int = 0
    parallelism: int = 1
    cut_over_ms: int | None = None
    sealed_before_ms: int | None = None

    @property
    def name(self) -> str:
        """The view's name."""
        return self.view

    @property
    def is_circuit_open(self) -> bool:
        """True after five failures within an hour: only a restart by hand goes on."""
        last = self.failures[-OPENING_FAILURES:]
        return len(last) == OPENING_FAILURES and last[-1] - last[0] <= FAILURE_WINDOW_MS

    @property
    def job_ids(self) -> tuple[str, ...]:
        """All jobs of this definition that are still remembered, oldest first."""
        return (*self.restores, self.job_id)

    def failures_with(self, now_ms: int) -> tuple[int, ...]:
        """Return the failures of the last hour and one more."""
        return (*(at for at in self.failures if now_ms - at <= FAILURE_WINDOW_MS), now_ms)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` gives; an unknown field of a newer build is passed over."""
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        previous, savepoint = values.get("previous"), values.get("savepoint")
        values["definition"] = JobDefinition(**values["definition"])
        values["previous"] = None if previous is None else cls.from_json(previous)
        values["savepoint"] = None if savepoint is None else Savepoint(**savepoint)
        values["retired"] = tuple(_retired(entry) for entry in values.get("retired", ()))
        for name in ("folders", "restores", "failures"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


def _retired(entry: Mapping[str, Any]) -> Retired:
    return Retired(**{**entry, "job_ids": tuple(entry["job_ids"])})


def backoff_ms(failures: int) -> int:
    """Return how long after a submission the next may follow: 15 s, 30 s, 1 min, … 15 min.

    >>> [backoff_ms(n) // 1000 for n in range(6)]
    [15, 15, 30, 60, 120, 240]
    """
    doubled = _FIRST_BACKOFF_MS * 2 ** max(failures - 1, 0)
    return int(min(doubled, _LONGEST_BACKOFF_MS))


@dataclass(frozen=True)
class RecordFiles(ViewFiles[StreamRecord]):
    """The records of one stack, under ``<home>/streams``, and the right to change them."""

    record = StreamRecord
    kind = ("a stream", "streams")
    mend = "remove it and deploy the stream again; it then reads its topic anew"

    @classmethod
    def of(cls, home: Path) -> "RecordFiles":
        """Return the records of a stack's home; nothing is made before the first write."""
        return cls(home / "streams")

    @contextmanager
    def changing(self, view: str) -> Iterator[None]:
        """Hold the right to act on a view's stream; waits for whoever has it."""
        with self._holding(self._lock(view)):
            yield

    @contextmanager
    def uploading(self, view: str) -> Iterator[None]:
        """Hold the right to upload a view's batch tiles; waits for whoever has it."""
        with self._holding(self._upload_lock(view)):
            yield

    @contextmanager
    def _holding(self, lock: Path) -> Iterator[None]:
        self._ensure()
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def note_upload(
        self, view: str, fingerprint: str, cut_over_ms: int, sealed_before_ms: int | None
    ) -> None:
        """Record up to where a version's batch tiles are stored, so that their loss is noticed.

        A version that no stream was ever deployed of has no record, and none is made.
        """
        with self.changing(view):
            record = self.read(view)
            if record is None:
                return
            edges: dict[str, Any] = {
                "cut_over_ms": cut_over_ms,
                "sealed_before_ms": sealed_before_ms,
            }
            if record.fingerprint == fingerprint:
                self.write(replace(record, **edges))
            elif record.previous is not None and record.previous.fingerprint == fingerprint:
                self.write(replace(record, previous=replace(record.previous, **edges)))

    def is_being_changed(self, view: str) -> bool:
        """True while another process acts on the view's stream."""
        return _is_held(self._lock(view))

    def is_being_uploaded(self, view: str) -> bool:
        """True while another process uploads the view's batch tiles."""
        return _is_held(self._upload_lock(view))

    def _lock(self, view: str) -> Path:
        return self.folder / f".{view}.lock"

    def _upload_lock(self, view: str) -> Path:
        return self.folder / f".{view}.upload.lock"

    def _ensure(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def retired_of(record: StreamRecord, now_ms: int) -> Retired:
    """Return what is left to drop of a version that serves no more."""
    return Retired(record.version, record.fingerprint, record.tile_topic, record.job_ids, now_ms)


def superseded(record: StreamRecord) -> tuple[str, ...]:
    """Return the jobs of a view that must not run beside the recorded ones."""
    older = record.previous
    retired = (job for old in record.retired for job in old.job_ids)
    return (*record.restores, *(older.restores if older is not None else ()), *retired)
