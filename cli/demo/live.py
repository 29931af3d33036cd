"""The live half of the demo: streams, real events sent now, served answers, and their audit."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.output import page, progress
from millrace.names import dead_letter_topic

if TYPE_CHECKING:
    from checks.parity.report import ParityReport
    from cli.demo.sets import DemoSet
    from millrace.plan import Plan, ViewPlan
    from resources.settings import Settings

RATE = 200.0
SECONDS = 12
SAMPLES = 150

_POISON = b'{"this is not": JSON'
_WATCHED_AT_ONCE = 40
_WATCH_EVERY = 10
_DEADLINE_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True)
class DeadLetter:
    """What became of a poisoned record.

    Attributes:
        reason: as the header says.
        is_intact: the original bytes are all there.
    """

    topic: str
    key: str
    reason: str
    is_intact: bool


@dataclass(frozen=True)
class LiveProof:
    """What was shown about the streams.

    Attributes:
        versions: of the deployed views.
        sent: events that the broker acknowledged.
        latencies_ms: from an event's stamp at its sending to the answer that holds it, sorted.
        unanswered: watched events that no answer held in time.
        books: of the source, as ``stream status`` tells them.
    """

    source: str
    versions: Mapping[str, str]
    sent: int
    latencies_ms: Sequence[int]
    unanswered: int
    dead_letter: DeadLetter
    parity: "Sequence[ParityReport]"
    books: Mapping[str, Any]

    def percentile_ms(self, share: float) -> int:
        """Return a percentile of the latencies; 0 without any."""
        ordered = self.latencies_ms
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def live_set(sets: "Sequence[DemoSet]") -> "DemoSet":
    """Return the set whose events are streamed: the card payments where they are."""
    named = {one.source: one for one in sets}
    return named.get("card_transactions", sets[0])


def deploy_streams(settings: "Settings", plan: "Plan", demo_set: "DemoSet") -> dict[str, str]:
    """Deploy the streams of a set's views, batch tiles included; return their versions."""
    from streaming.control.deployments import deploy

    versions = {}
    with progress("deploying streams", len(demo_set.views)) as advance:
        for view in demo_set.views:
            record = deploy(settings, plan, view, lambda text: advance(0, description=text))
            versions[view] = record.version
            advance()
    return versions


def stream_and_watch(
    settings: "Settings", plan: "Plan", demo_set: "DemoSet", versions: Mapping[str, str]
) -> "tuple[int, Watcher]":
    """Send the last stretch of real events as if they happened now, and look features up meanwhile.

    Returns:
        The number of events sent, and what the lookups saw.
    """
    from streaming.produce.producer import Pace, produce

    view = plan.view(demo_set.watched)
    watcher = Watcher(settings, view, versions[view.name])
    path = write_stretch(settings, plan, demo_set)
    sending = threading.Event()
    watching = threading.Thread(target=watcher.run, args=(sending,), daemon=True)
    with progress(f"{RATE:.0f} events/s into {view.source.name}") as advance:
        watching.start()
        watcher.is_listening.wait(_DEADLINE_S)
        report = produce(
            settings,
            plan,
            demo_set.source,
            path,
            pace=Pace(RATE, shift_to_now=True),
            progress=lambda done, total: advance(completed=done, total=total),
        )
        sending.set()
        watching.join(_DEADLINE_S)
    return report.rows, watcher


def write_stretch(settings: "Settings", plan: "Plan", demo_set: "DemoSet") -> Path:
    """Write the last events of a set under ids of their own, and return the file.

    With the ids of the file a second demo within the dedup horizon would send only duplicates.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    raw = pq.read_table(demo_set.raw)
    raw = raw.filter(pc.is_valid(raw[demo_set.event_time]))
    newest = pc.sort_indices(raw, sort_keys=[(demo_set.event_time, "ascending")])
    stretch = raw.take(newest[-int(RATE * SECONDS) :])
    event_id = plan.sources[demo_set.source].event_id
    if event_id is not None:
        first = time.time_ns() // 1_000
        ids = pa.array(range(first, first + stretch.num_rows), pa.int64())
        stretch = stretch.set_column(stretch.column_names.index(event_id), event_id, ids)
    path = settings.home / "demo" / f"stretch_{demo_set.source}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(stretch, path)
    return path


@dataclass
class Watcher:
    """Reads the topic beside Flink, and asks the online API until an answer holds each event.

    An answer's ``ts`` is the newest event in it, so it says by itself whether it holds one.
    """

    settings: "Settings"
    view: "ViewPlan"
    version: str
    latencies_ms: list[int] = field(default_factory=list)
    lookups: int = 0
    waiting: dict[Any, int] = field(default_factory=dict)
    is_listening: threading.Event = field(default_factory=threading.Event)

    def run(self, is_sent: threading.Event) -> None:
        """Watch until all is sent and answered, or for a minute after the last was sent."""
        from resources.endpoints import kafka_bootstrap
        from resources.kafka.client import consumer

        bootstrap = kafka_bootstrap(self.settings)
        deadline, seen = float("inf"), 0
        reader = consumer(bootstrap)
        try:
            reader.assign(self._ends(bootstrap))
            reader.poll(0.1)
            self.is_listening.set()
            while not (is_sent.is_set() and not self.waiting) and time.monotonic() < deadline:
                if is_sent.is_set() and deadline == float("inf"):
                    deadline = time.monotonic() + _DEADLINE_S
                for record in reader.consume(500, timeout=_POLL_S):
                    seen += 1
                    if seen % _WATCH_EVERY == 0 and len(self.waiting) < _WATCHED_AT_ONCE:
                        self._watch(record.value())
                self._ask()
        finally:
            reader.close()

    def _ends(self, bootstrap: str) -> "list[Any]":
        from confluent_kafka import TopicPartition

        from resources.kafka.client import end_offsets

        topic = self.view.source.stream.topic if self.view.source.stream else ""
        ends = end_offsets(bootstrap, topic)
        return [TopicPartition(topic, number, end) for number, end in ends.items()]

    def _watch(self, value: bytes) -> None:
        import json

        from resources.online_api import instant_ms

        event = json.loads(value)
        key = event[self.view.join_keys[0]]
        if key is not None:
            self.waiting.setdefault(key, instant_ms(event[self.view.source.event_time]))

    def _ask(self) -> None:
        from resources.endpoints import server_url
        from resources.online_api import batch_lookup

        if not self.waiting:
            return
        keys = [(key,) for key in self.waiting]
        batch = batch_lookup(server_url(self.settings), self.view, self.version, keys)
        now_ms = time.time_ns() // 1_000_000
        self.lookups += len(keys)
        for entity in batch.entities:
            newest = max((v.ts_ms for v in entity.features.values() if v.ts_ms), default=0)
            if newest >= self.waiting[entity.key[0]]:
                self.latencies_ms.append(now_ms - self.waiting.pop(entity.key[0]))


def poison(settings: "Settings", plan: "Plan", source: str) -> DeadLetter:
    """Send a record that is no JSON, and wait for it in the dead-letter topic."""
    from confluent_kafka import TopicPartition

    from millrace.errors import EngineError
    from resources.endpoints import kafka_bootstrap
    from resources.kafka.client import consumer, end_offsets, producer

    stream = plan.sources[source].stream
    topic = stream.topic if stream else ""
    dead_letters = dead_letter_topic(topic)
    bootstrap = kafka_bootstrap(settings)
    reader = consumer(bootstrap)
    try:
        ends = end_offsets(bootstrap, dead_letters)
        reader.assign([TopicPartition(dead_letters, number, end) for number, end in ends.items()])
        sender = producer(bootstrap)
        places: list[str] = []
        sender.produce(
            topic,
            value=_POISON,
            on_delivery=lambda _, sent: places.append(f"{sent.partition()}:{sent.offset()}"),
        )
        sender.flush(_DEADLINE_S)
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            for record in reader.consume(100, timeout=0.2):
                if (key := record.key().decode()) in places:
                    reason = dict(record.headers())["reason"].decode()
                    return DeadLetter(dead_letters, key, reason, record.value() == _POISON)
    finally:
        reader.close()
    raise EngineError(
        f"a poisoned record did not come to {dead_letters} within {_DEADLINE_S:.0f} s",
        where=topic,
        fix="millrace status; millrace logs archive",
    )


def audit(settings: "Settings", plan: "Plan", demo_set: "DemoSet") -> "list[ParityReport]":
    """Hold served answers of every view of the set against the lake."""
    from checks.parity.audit import check_parity

    reports = []
    with progress("recomputing served answers", len(demo_set.views)) as advance:
        for view in demo_set.views:
            reports.append(
                check_parity(
                    settings,
                    plan,
                    view,
                    lambda text: advance(0, description=text),
                    samples=SAMPLES,
                )
            )
            advance()
    return reports


def source_counts(settings: "Settings", plan: "Plan", source: str) -> Mapping[str, Any]:
    """Return the archive's books of a source."""
    from streaming.archive.status import archive_status

    return archive_status(settings, plan)[source]


def show_live(proof: LiveProof) -> None:
    """Show what was sent, how soon it was served, and what the audit found."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    shown = ", ".join(f"{name} {proof.percentile_ms(s)} ms" for name, s in shares.items())
    page.print(
        f"  {proof.sent:,} events sent to {proof.source}; from sending to the first answer with "
        f"the event: [bold]{shown}[/] ({len(proof.latencies_ms)} watched)",
        soft_wrap=True,
    )
    dead_letter = proof.dead_letter
    page.print(
        f"  a poisoned record lies in {dead_letter.topic} as {dead_letter.key}: {dead_letter.reason}",
        markup=False,
    )
    dead = sum(proof.books["dead_letters"].values())
    page.print(
        f"  the archive's books: {proof.books['events']:,} events, "
        f"{proof.books['duplicates']:,} duplicates, {dead:,} dead letters"
    )
    for report in proof.parity:
        style = "green" if report.is_equal else "red"
        page.print(
            f"  parity of {report.view.name} {report.version}: {report.values:,} values, "
            f"[{style}]{report.differing:,} differ[/]"
        )
