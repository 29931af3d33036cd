"""Runs that are launched by GraphQL while the webserver is struck, and who strikes.

A webserver that dies while it answers may have made the run or not. So each launch carries a tag of
its own, by which whoever launched finds what became of it.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.days import Days
from millrace.errors import EngineError
from resources.dagster.client import ASSET_JOB, FINISHED, AssetPath, DagsterApi, Failed
from stack.files import StackFiles
from tests.support.dagster_stack import wait_for
from tests.support.live.durable_receiver import ReceiverProcess

ROUND_TAG = "test/round"
LOST_AFTER_S = 15.0
"""A run that the webserver made and did not queue by then never will be: it died in between."""
_END_S = 600.0

_RUNS = """
query Runs($filter: RunsFilter) {
  runsOrError(filter: $filter) {
    __typename
    ... on Runs { results { id status tags { key value } } }
    ... on Error { message }
  }
}
"""

_DELETE = """
mutation Delete($run: String!) {
  deletePipelineRun(runId: $run) { __typename ... on Error { message } }
}
"""

_EVALUATIONS = """
query Evaluations($run: ID!, $cursor: String) {
  logsForRun(runId: $run, afterCursor: $cursor, limit: 1000) {
    __typename
    ... on EventConnection { cursor hasMore events { ... on AssetCheckEvaluationEvent {
      evaluation { assetKey { path } checkName partition success severity }
    } } }
    ... on Error { message }
  }
}
"""


@dataclass(frozen=True)
class Evaluation:
    """What a check found of one day.

    Attributes:
        check: asset and check, as ``events/payments|null_rate``.
        failed_as: ``warn`` or ``error``; None if it passed.
    """

    check: str
    day: str
    failed_as: str | None


@dataclass(frozen=True)
class Run:
    """A run as GraphQL shows it."""

    id: str
    status: str
    tags: Mapping[str, str]

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED


def runs(api: DagsterApi, **filters: Any) -> list[Run]:
    """Return the runs that fit a ``RunsFilter``, the oldest first."""
    found = api.query(_RUNS, {"filter": filters})["runsOrError"]
    assert found["__typename"] == "Runs", found
    return [
        Run(one["id"], one["status"], {tag["key"]: tag["value"] for tag in one["tags"]})
        for one in reversed(found["results"])
    ]


def asset_runs(api: DagsterApi) -> list[Run]:
    """Return every run that built assets."""
    return runs(api, pipelineName=ASSET_JOB)


def evaluations(api: DagsterApi, run_id: str) -> Iterator[Evaluation]:
    """Yield what checks found of single days in a run, as Dagster's event log has it."""
    cursor, more = None, True
    while more:
        page = api.query(_EVALUATIONS, {"run": run_id, "cursor": cursor})["logsForRun"]
        assert page["__typename"] == "EventConnection", page
        cursor, more = page["cursor"], page["hasMore"]
        found = [event["evaluation"] for event in page["events"] if event]
        for one in found:
            if one["partition"] is not None:
                check = f"{'/'.join(one['assetKey']['path'])}|{one['checkName']}"
                failed_as = None if one["success"] else one["severity"].lower()
                yield Evaluation(check, one["partition"], failed_as)


def build(api: DagsterApi, assets: Sequence[AssetPath], days: Days, number: int) -> list[str]:
    """Build days in a round of this number, whoever is struck meanwhile; returns the runs that did.

    A launch that got lost with the webserver is done again, as a person would.
    """
    mine = [{"key": ROUND_TAG, "value": str(number)}]
    lost: set[str] = set()
    while True:
        with suppress(EngineError):
            api.launch(assets, days, tags={ROUND_TAG: str(number)})
        built = wait_for(f"run of round {number}", _Verdict(api, mine, lost), deadline_s=_END_S)
        if built:
            return built


@dataclass
class _Verdict:
    """Asks how a round ended: the ids of the runs that built it; none if it must be launched again.

    Attributes:
        lost: runs that never came to anything. They are deleted, as whoever launches again would:
            Dagster fails what never starts after three minutes, and would start it anew.
    """

    api: DagsterApi
    tags: list[dict[str, str]]
    lost: set[str]
    _since: float = field(default_factory=time.monotonic)

    def __call__(self) -> list[str] | None:
        """Return None while it is not known."""
        found = [one for one in runs(self.api, tags=self.tags) if one.id not in self.lost]
        made = [one for one in found if one.status != "NOT_STARTED"]
        if not made:
            if time.monotonic() - self._since < (LOST_AFTER_S if found else 2.0):
                return None
            for one in found:
                self.api.query(_DELETE, {"run": one.id})
                self.lost.add(one.id)
            return []
        if not all(one.is_finished for one in made):
            return None
        return [one.id for one in made if self._has_built(one)] or None

    def _has_built(self, run: Run) -> bool:
        """Say whether a run came to judge its days; one that did not start, Dagster starts anew."""
        if run.status == "SUCCESS":
            return True
        events = self.api.progress(run.id).events
        return any(isinstance(event, Failed) and event.partitions for event in events)


class DagsterProgram:
    """One program of a stack's Dagster; the stack's supervisor starts it again."""

    def __init__(self, home: Path, name: str) -> None:
        self._files, self._name = StackFiles(home), name
        self._known: tuple[int, float] = (0, 0.0)

    def kill(self) -> None:
        """Kill it with -9; none if it has ended meanwhile."""
        if pid := self._pid():
            os.kill(pid, signal.SIGKILL)

    def worked_s(self) -> float:
        """Return for how long it has been seen running while all of Dagster was ready; else 0.

        A busy machine takes long to start it, and one that is always struck before never works.
        """
        is_ready = self._files.read_records()["dagster"].state == "running"
        pid = self._pid() if is_ready else None
        if pid is None:
            return 0.0
        if self._known[0] != pid:
            self._known = (pid, time.monotonic())
        return time.monotonic() - self._known[1]

    def _pid(self) -> int | None:
        identity = self._files.read_records()["dagster"].programs.get(self._name)
        return identity.pid if identity is not None and identity.is_alive else None


@dataclass
class Striker:
    """Kills one of several at random again and again, each of them soon; in a ``with``, until its end.

    Attributes:
        programs: struck once they have worked for ``grown_s``.
        receivers: struck at any time, every other time as soon as they have taken something and
            before they have answered; started again after up to ``away_s``.
        pause_s: least and most between two kills.
    """

    programs: Mapping[str, DagsterProgram]
    receivers: Mapping[str, ReceiverProcess]
    seed: int
    pause_s: tuple[float, float] = (3.0, 8.0)
    grown_s: float = 10.0
    away_s: float = 4.0
    lurk_s: float = 10.0
    kills: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _error: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> "Striker":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def spared(self) -> set[str]:
        """Those that were not killed yet."""
        return {*self.programs, *self.receivers} - set(self.kills)

    def check(self) -> None:
        """Raise what went wrong while striking."""
        assert not self._error, self._error

    def _run(self) -> None:
        chance = random.Random(self.seed)
        try:
            while not self._stop.wait(chance.uniform(*self.pause_s)):
                self._strike(chance)
        except (OSError, AssertionError, KeyError) as error:
            self._error.append(error)

    def _strike(self, chance: random.Random) -> None:
        grown = [n for n, one in self.programs.items() if one.worked_s() > self.grown_s]
        able = [*grown, *self.receivers]
        # Each once, then whoever comes: a short run strikes all of them as well.
        name = chance.choice([one for one in able if one in self.spared] or able)
        self.kills[name] += 1
        if name in self.programs:
            self.programs[name].kill()
            return
        receiver = self.receivers[name]
        if chance.random() < 0.5:
            self._lurk(receiver)
        receiver.kill()
        self._stop.wait(chance.uniform(0, self.away_s))
        receiver.start()

    def _lurk(self, receiver: ReceiverProcess) -> None:
        size, end = receiver.size(), time.monotonic() + self.lurk_s
        while receiver.size() == size and time.monotonic() < end and not self._stop.wait(0.02):
            pass
