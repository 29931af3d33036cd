"""The sensor that watches everything and decides what is told, and the job that delivers it.

The watcher reads, decides, and writes what it decided into the alerts' database, in one
transaction; it sends nothing. As long as something waits there for a sink, it asks for a run of
``deliver_alerts``. Neither a lost run, nor a killed process, nor a sink that is away loses a
transition: what was not sent is due at the next look. See docs/alerts.md.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

import dagster as dg

from jobs.instance.run_kinds import UPKEEP
from millrace.durations import DAY_MS
from millrace.errors import EngineUnavailable
from resources.dagster.client import WILL_RETRY
from resources.documentation import CHECKOUT_FILES
from streaming.engines import Engines

if TYPE_CHECKING:
    from alerts.configuration import AlertConfig
    from alerts.facts import Fact
    from alerts.outbox import Outbox, SinkStatus
    from alerts.state import AlertStore, IncidentLog, Watch
    from jobs.alerts.owners import Declared
    from jobs.alerts.runs import Update

SENSOR = "alert_watch"
JOB = "deliver_alerts"

_INTERVAL_S = 15
_BUDGET_S = 20.0
"""A tick is cut off at 60 s; what was not read by then is read by the next one."""
_RUNS_A_TICK = 200
_KEPT_MS = 30 * DAY_MS
"""A closed condition is forgotten after it; a fact that comes later still would open it anew."""
_STARTING_MS = 180_000
"""A run of the job that has not begun to send by then counts as dead."""
_UNDECIDED_MS = 30_000
"""Dagster notes it right after it has stored the failure."""
_SETTLING_MS = 30_000
"""A run that has started takes its leases within this."""
_DELIVERING = [
    status
    for status in dg.DagsterRunStatus
    if status
    not in {
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    }
]
_RUN_TAGS = {
    **UPKEEP,
    # Before any history: whoever is to mend something is told first.
    "dagster/priority": "20",
    # A process that died is failed by then, and not kept as running for half a day.
    "dagster/max_runtime": "900",
}


def deliver_job(engines: Engines) -> dg.JobDefinition:
    """Return ``deliver_alerts``: sends what waits; fails, without a retry, if a sink does."""

    @dg.op(name="deliver", description="Sends what waits to each sink, in order.")
    def send(context: dg.OpExecutionContext) -> None:
        from alerts.configuration import load_config
        from alerts.delivery import deliver
        from alerts.outbox import Outbox
        from alerts.state import AlertStore

        with AlertStore.open(engines.settings) as store:
            reports = deliver(
                Outbox(store.engine), load_config(engines.settings), clock=engines.now_ms
            )
        for one in reports:
            where = ", the rest by another run" if one.is_elsewhere else ""
            context.log.info("%s: %d sent%s", one.sink, one.sent, where)
        failed = [f"{one.sink}: {one.error}" for one in reports if one.error]
        failed += [f"{one.sink} refused {told}" for one in reports for told in one.refused]
        if failed:
            raise dg.Failure("\n".join(failed), allow_retries=False)

    @dg.job(
        name=JOB,
        description="Alerts: sends what waits to each sink.",
        tags=_RUN_TAGS,
        executor_def=dg.in_process_executor,
    )
    def deliver_alerts() -> None:
        send()

    return deliver_alerts


def alert_sensor(engines: Engines, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the watcher; on by default, every fifteen seconds."""

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Decides who is told of failed checks, partitions, runs, streams and sinks.",
    )
    def alert_watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        origin = context.code_location_origin
        location = None if origin is None else origin.location_name
        return Look(engines, context.instance, context.repository_def, location).tick()

    return alert_watch


@dataclass
class Look:
    """One look at everything.

    Attributes:
        repository: the code location that the sensor is of; None: not known.
        location: its name; runs of other locations are not ours to tell of.
    """

    engines: Engines
    instance: dg.DagsterInstance
    repository: dg.RepositoryDefinition | None = None
    location: str | None = None
    now_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self.now_ms = self.engines.now_ms()

    def tick(self) -> dg.SensorResult:
        """Look, decide, write it down; say whether a delivery is due.

        Raises:
            PlatformError: the alerts file is faulty. Nothing is lost: all is read later.
        """
        from alerts.configuration import load_config
        from alerts.outbox import Outbox
        from alerts.state import AlertStore

        config = load_config(self.engines.settings)
        with AlertStore.open(self.engines.settings) as store:
            outbox = Outbox(store.engine)
            statuses = list(outbox.statuses(config.sinks, self.now_ms).values())
            lag_ms = self._watch(store, config, statuses)
            statuses = list(outbox.statuses(config.sinks, self.now_ms).values())
            told = self._summary(store, statuses, lag_ms)
            requests = list(self._requests(outbox, statuses))
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps(told),
            skip_reason=None if requests else _skip_text(told),
        )

    def _watch(
        self, store: "AlertStore", config: "AlertConfig", statuses: "Sequence[SinkStatus]"
    ) -> int:
        """Read, decide and write down; returns how far the watcher is behind, milliseconds."""
        from alerts.state import Watch
        from jobs.alerts.runs import OVERLAP, epoch_us, from_epoch_us

        watch = store.watch() or Watch(self.now_ms * 1000, self.now_ms)
        updates, facts, is_behind = self._read_runs(store, watch)
        sampled, declared = self._sample(config, statuses)
        position_us = max([watch.position_us, *(one.at_us for one in updates)])
        with store.deciding() as book:
            known = book.watch() or watch
            facts = [declared.told(fact) for fact in (*facts, *sampled)]
            self._decide(book, config, declared, facts)
            beat = self._beat(book, config, known)
            now = Watch(max(known.position_us, position_us), self.now_ms, beat)
            book.set_watch(now)
            seen = [(one.run.run_id, one.at_us) for one in updates]
            forget_us = epoch_us(from_epoch_us(now.position_us) - 2 * OVERLAP)
            book.add_seen(seen, forget_before_us=forget_us)
            book.forget(before_ms=self.now_ms - _KEPT_MS)
        return self.now_ms - position_us // 1000 if is_behind else 0

    def _read_runs(
        self, store: "AlertStore", watch: "Watch"
    ) -> "tuple[list[Update], list[Fact], bool]":
        """Return runs that were read, what they say, and whether more of them wait."""
        from jobs.alerts.runs import ended_runs, from_epoch_us, run_facts

        until = monotonic() + _BUDGET_S
        found = ended_runs(self.instance, from_epoch_us(watch.position_us), _RUNS_A_TICK)
        unseen = set(store.unseen([(one.run.run_id, one.at_us) for one in found]))
        fresh = [
            one
            for one in found
            if (one.run.run_id, one.at_us) in unseen and not self._is_undecided(one)
        ]
        facts: list[Fact] = []
        for number, update in enumerate(fresh):
            if monotonic() > until:
                return fresh[:number], facts, True
            if self._is_ours(update.run):
                facts += run_facts(self.instance, update.run)
        return fresh, facts, len(fresh) >= _RUNS_A_TICK

    def _is_undecided(self, update: "Update") -> bool:
        """Say whether Dagster may still be about to note that it starts a failed run once more."""
        return (
            update.run.status is dg.DagsterRunStatus.FAILURE
            and WILL_RETRY not in update.run.tags
            and self.instance.run_retries_enabled
            and self.now_ms - update.at_us // 1000 < _UNDECIDED_MS
        )

    def _is_ours(self, run: dg.DagsterRun) -> bool:
        if run.job_name == JOB:
            # A failed delivery shows as a sink that takes nothing; told as a run, it would be
            # delivered too, and fail.
            return False
        origin = run.remote_job_origin
        return self.location is None or origin is None or origin.location_name == self.location

    def _sample(
        self, config: "AlertConfig", statuses: "Sequence[SinkStatus]"
    ) -> "tuple[list[Fact], Declared]":
        """Return what is looked at anew each time, and what is declared."""
        from jobs.alerts.days import day_facts
        from jobs.alerts.owners import Declared
        from jobs.alerts.platform import daemon_facts, sink_facts, tick_facts
        from jobs.alerts.runs import runless_facts
        from jobs.alerts.streams import stream_facts
        from resources.declarations import load_valid_plan

        plan, faults = load_valid_plan(self.engines.settings)
        streams, names = stream_facts(self.engines, plan, config.streams, self.now_ms)
        graph = None if self.repository is None else self.repository.asset_graph
        checks = [] if graph is None else sorted(graph.asset_check_keys, key=str)
        facts = [
            *streams,
            *runless_facts(self.instance, checks),
            *day_facts(self.instance, plan, self.now_ms),
            *daemon_facts(self.instance, self.now_ms),
            *tick_facts(self.instance, self.repository, self.now_ms),
            *sink_facts([one for one in statuses if one.name in config.sinks], self.now_ms),
        ]
        is_complete = not faults
        return facts, Declared(self.repository, plan, is_complete, names, set(config.sinks))

    def _decide(
        self,
        book: "IncidentLog",
        config: "AlertConfig",
        declared: "Declared",
        facts: "Sequence[Fact]",
    ) -> None:
        from alerts.causes import Causes
        from alerts.decision import awaited_fingerprints, decide
        from alerts.folding import Folds
        from alerts.message import Bases, message_of
        from alerts.state import Posting
        from jobs.alerts.causes import causes_of

        is_open = book.open_conditions()
        awaited = {key for fact in facts for key in fact.awaits}
        awaited |= {key for one in is_open.values() if one.incident for key in one.incident.awaits}
        above = [one.incident.under for one in is_open.values() if one.incident]
        asked = [*(fact.fingerprint for fact in facts), *awaited_fingerprints(awaited), *above]
        decision = decide(
            book.conditions(asked) | is_open,
            facts,
            now_ms=self.now_ms,
            renotify_ms=config.renotify_ms,
            route=config.routing.sinks_of,
            gone=declared.gone(is_open),
            folds=Folds(
                causes_of(self.repository, declared.plan)
                if config.fold.is_on
                else Causes(edges=()),
                hold_ms=config.fold.hold_ms,
                settle_ms=config.fold.settle_ms,
            ),
        )
        book.set_conditions(decision.changed)
        docs = config.docs_url or self.engines.settings.docs_url or CHECKOUT_FILES
        bases = Bases(config.dagster_url or self._webserver(), docs)
        postings = [
            Posting(message_of(transition, bases), sink)
            for transition in decision.transitions
            for sink in transition.sinks
            if sink in config.sinks
        ]
        book.post(postings, self.now_ms)

    def _beat(self, book: "IncidentLog", config: "AlertConfig", watch: "Watch") -> int:
        """Post the sign of life of a period, once; returns the period's number."""
        from alerts.folding import standing
        from alerts.message import heartbeat_message
        from alerts.state import Posting

        if config.heartbeat_ms is None:
            return watch.heartbeat
        number = self.now_ms // config.heartbeat_ms
        if number > watch.heartbeat:
            count = len(standing(book.open_conditions()))
            told = f"{count} incidents are open." if count else "Nothing is open."
            message = heartbeat_message(number, self.now_ms, told)
            book.post([Posting(message, sink) for sink in config.heartbeat_sinks], self.now_ms)
        return number

    def _webserver(self) -> str:
        from resources.endpoints import dagster_url

        try:
            return dagster_url(self.engines.settings)
        except EngineUnavailable:
            return ""

    def _summary(
        self, store: "AlertStore", statuses: "Sequence[SinkStatus]", lag_ms: int
    ) -> dict[str, int]:
        from alerts.folding import standing

        opened = {one.fingerprint: one for one in store.open_conditions()}
        alone = len(standing(opened))
        return {
            "lag_ms": lag_ms,
            "open": alone,
            "folded": len(opened) - alone,
            "waiting": sum(one.pending for one in statuses),
            "refused": sum(one.parked for one in statuses),
        }

    def _requests(
        self, outbox: "Outbox", statuses: "Sequence[SinkStatus]"
    ) -> Iterator[dg.RunRequest]:
        """Ask for one delivery of everything that is due, unless one is on its way."""
        due = [one.name for one in statuses if one.is_due(self.now_ms)]
        if not due or self._is_delivering():
            return
        attempt = self.instance.get_runs_count(dg.RunsFilter(job_name=JOB)) + 1
        key = f"deliver|{outbox.newest_pending()}|{attempt}"
        yield dg.RunRequest(run_key=key, tags={"millrace/sinks": ", ".join(due)})

    def _is_delivering(self) -> bool:
        """Say whether a run is on its way that will take what is due.

        A run whose process was killed looks as if it ran for ever, so only young ones count; what
        they send is kept from others by leases, which end.
        """
        young = datetime.fromtimestamp((self.now_ms - _STARTING_MS) / 1000, tz=UTC)
        filters = dg.RunsFilter(job_name=JOB, statuses=_DELIVERING, created_after=young)
        return any(self._may_send(record) for record in self.instance.get_run_records(filters))

    def _may_send(self, record: dg.RunRecord) -> bool:
        started_s = record.start_time
        return started_s is None or self.now_ms - started_s * 1000 < _SETTLING_MS


def _skip_text(told: dict[str, int]) -> str:
    lag = f"; {told['lag_ms'] // 1000} s behind" if told["lag_ms"] else ""
    folded = f" ({told['folded']} folded)" if told["folded"] else ""
    return f"{told['open']} open{folded}, {told['waiting']} waiting, {told['refused']} refused{lag}"
