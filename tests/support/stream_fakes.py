"""Flink, Kafka and the store in memory, for tests of what is done about streams.

``FakeFlink`` passes the same contract tests as ``resources.flink.rest.FlinkCluster`` for what the
platform asks of it. Nothing runs by itself: tests say what a job becomes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.errors import EngineRejected, EngineUnavailable, PlatformError
from millrace.plan import Plan
from resources.declarations import plan_of
from resources.flink.rest import CheckpointReport, JobReport, Slots
from resources.kafka.brokers import Brokers
from resources.settings import Settings, settings_from_env
from resources.store.memory import MemoryStore
from resources.store.online import OnlineStore
from streaming.control.reconcile import ENDED
from streaming.engines import Engines, Flink

if TYPE_CHECKING:
    from resources.kafka.client import Topic

VIEWS = """
version: millrace/v1
sources:
  - name: payments
    columns: {{payment_id: int64, paid_at: timestamp, customer_id: int64, amount: "decimal(12,2)"}}
    event_time: paid_at
    event_id: payment_id
    stream: {{topic: {topic}, format: json}}
    batch: {{format: parquet, path: /nowhere}}
entities:
  - {{name: customer, join_key: customer_id, type: int64}}
feature_views:
  - name: {view}
    entity: customer
    source: payments
    start: 2020-01-01
    filter: "amount > {least}"
    features:
      - {{name: payments_1h, aggregate: count, window: 1h}}
"""
START_MS = 1_700_000_000_000


def write_views(
    folder: Path, *, view: str = "spend", topic: str = "payments", least: int = 0
) -> Plan:
    """Declare one view over one stream; another ``least`` is another meaning."""
    folder.mkdir(exist_ok=True)
    file = folder / "views.yaml"
    file.write_text(VIEWS.format(view=view, topic=topic, least=least), encoding="utf-8")
    return plan_of([file])


@dataclass
class FakeFlink:
    """A Flink that takes every job, and whose jobs are what a test says they are.

    Attributes:
        checkpoints_root: where it keeps checkpoints, as a real one does.
        submissions: every job taken, in order.
        is_away: it does not answer.
        refusal: it refuses every job with this message.
        total_slots: how many it has at the moment.
    """

    checkpoints_root: Path
    states: dict[str, str] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    jars: list[Path] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)
    completed: dict[str, int] = field(default_factory=dict)
    is_away: bool = False
    refusal: str = ""
    total_slots: Callable[[], int] = lambda: 8

    def _answer(self) -> None:
        if self.is_away:
            raise EngineUnavailable("Flink does not answer", where="fake")

    def slots(self) -> Slots:
        self._answer()
        total = self.total_slots()
        held = sum(state not in ENDED for state in self.states.values())
        return Slots(total, max(0, total - held))

    def ensure_jar(self, path: Path) -> str:
        self._answer()
        if path not in self.jars:
            self.jars.append(path)
        return path.name

    def run(
        self,
        jar_id: str,
        script: str,
        job_id: str,
        configuration: Mapping[str, str],
        parallelism: int,
        restore_from: str | None = None,
    ) -> str:
        self._answer()
        if self.refusal:
            raise EngineRejected(self.refusal, where=jar_id)
        if job_id not in self.states:
            self.states[job_id] = "RUNNING"
            self.submissions.append(
                {
                    "job_id": job_id,
                    "script": script,
                    "configuration": dict(configuration),
                    "parallelism": parallelism,
                    "restore_from": restore_from,
                }
            )
        return job_id

    def job(self, job_id: str) -> JobReport | None:
        self._answer()
        state = self.states.get(job_id)
        return None if state is None else job_report(job_id, state)

    def jobs(self) -> list[JobReport]:
        self._answer()
        return [job_report(job_id, state) for job_id, state in self.states.items()]

    def cancel(self, job_id: str) -> None:
        self._answer()
        if self.states.get(job_id, "FINISHED") not in ENDED:
            self.states[job_id] = "CANCELED"

    def stop_with_savepoint(self, job_id: str) -> str:
        self._answer()
        if self.states.get(job_id) != "RUNNING":
            raise EngineRejected(f"job {job_id} does not run")
        self.states[job_id] = "FINISHED"
        path = self.checkpoints_root.parent / "savepoints" / f"savepoint-{job_id[:6]}"
        return _with_metadata(path)

    def checkpoints(self, job_id: str) -> CheckpointReport:
        self._answer()
        return checkpoint_report(self.completed.get(job_id, 0))

    def exceptions(self, job_id: str) -> str | None:
        self._answer()
        return self.causes.get(job_id)

    def complete_checkpoint(self, job_id: str) -> str:
        """Let a job complete its next checkpoint; returns where it lies."""
        number = self.completed.get(job_id, 0) + 1
        self.completed[job_id] = number
        return _with_metadata(self.checkpoints_root / job_id / f"chk-{number}")

    def fail(self, job_id: str, cause: str = "boom") -> None:
        """Let a job fail."""
        self.states[job_id], self.causes[job_id] = "FAILED", cause

    def forget(self) -> None:
        """Lose all jobs, as a JobManager that was killed does."""
        self.states.clear()


def _with_metadata(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "_metadata").touch()
    return f"file:{folder}"


@dataclass(frozen=True)
class FakeEngines(Engines):
    """All doors of a stack, each to a stand-in; ``clock`` holds the instant."""

    fake: FakeFlink = field(default_factory=lambda: FakeFlink(Path()))
    memory: MemoryStore = field(default_factory=MemoryStore)
    topics: dict[str, Mapping[str, str]] = field(default_factory=dict)
    ends: dict[str, dict[int, int]] = field(default_factory=dict)
    committed: dict[str, dict[int, int]] = field(default_factory=dict)
    clock: list[int] = field(default_factory=lambda: [START_MS])
    away: set[str] = field(default_factory=set)

    @property
    def flink(self) -> Flink:
        return self.fake

    @property
    def brokers(self) -> Brokers:
        return Brokers("broker:9092", self.settings.kafka_properties)

    def now_ms(self) -> int:
        return self.clock[0]

    def runner_jar(self) -> Path:
        return self.settings.home / "runner.jar"

    def ensure_topics(self, topics: "Sequence[Topic]") -> None:
        for topic in topics:
            self.topics.setdefault(topic.name, topic.config)
            self.ends.setdefault(topic.name, {0: 0, 1: 0})

    def delete_topics(self, names: Iterable[str]) -> None:
        for name in names:
            self.topics.pop(name, None)

    def begin_offsets(self, topic: str) -> Mapping[int, int]:
        return dict.fromkeys(self.ends[topic], 0)

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        return dict(self.ends[topic])

    def committed_offsets(self, group: str, topic: str) -> Mapping[int, int]:
        return dict(self.committed.get(group, {}))

    @contextmanager
    def store(self) -> Iterator[OnlineStore]:
        if "store" in self.away:
            raise PlatformError("the store does not run")
        yield self.memory.online()


def fake_engines(home: Path, *, views: Sequence[Path] = ()) -> FakeEngines:
    """Return stand-ins for a stack whose home is a folder of the test's own."""
    settings: Settings = settings_from_env({"MILLRACE_HOME": str(home)})
    settings = replace(settings, views=tuple(views))
    checkpoints = home / "flink" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (home / "runner.jar").write_bytes(b"functions")
    return FakeEngines(settings, FakeFlink(checkpoints))


def job_report(job_id: str, state: str) -> JobReport:
    """Return what Flink says of a job whose tasks are as it is."""
    return JobReport(job_id, state, is_running=state == "RUNNING")


def checkpoint_report(completed: int) -> CheckpointReport:
    """Return what Flink says of a job with so many complete checkpoints, the last just now."""
    return CheckpointReport(completed, None, None, 0.0 if completed else None)
