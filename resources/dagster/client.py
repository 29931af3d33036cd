"""A small client of Dagster's GraphQL: what a backfill needs, and nothing else.

A range of days is launched as the UI does it when a range is passed to a single run: one
``launchPipelineExecution`` over the chosen assets with the two range tags, so both are the same
run.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from millrace.days import Days
from millrace.errors import EngineRejected, EngineUnavailable
from resources.dagster import queries
from resources.dagster.partition_keys import is_hour, key_range, partition_keys, range_tags

AssetPath = tuple[str, ...]

ASSET_JOB = "__ASSET_JOB"
"""Dagster's own job over any choice of assets."""
HISTORY_JOB = "build_history"
"""The platform's job that builds what a waiting version lacks."""
FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
FAILURES = "failures"
"""Metadata entry of a failed step: asset key to partition key to reason."""
WILL_RETRY = "dagster/will_retry"
"""Tag of a failed run: whether Dagster starts it once more."""
UNDATED = "dead_letters_of_no_day"
"""Metadata of a build: how many rows of its files are refused and belong to no day."""

_WRAPPERS = ("DagsterExecutionStepExecutionError", "RetryRequested", "RetryRequestedFromPolicy")
_UNYIELDED = "did not yield or return expected outputs"
"""Dagster's remark on steps that report their days as events; there is nothing to be done about it."""
_PAGE = 1000
_MOST_ACTIVE = 100
_LAUNCH_TIMEOUT_S = 300.0
"""Dagster writes an event for each partition that is planned before it answers."""


@dataclass(frozen=True)
class Materialized:
    """One partition of one asset was built; metadata as plain values."""

    asset: AssetPath
    partition: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """A step or the run failed; ``partitions`` says which: asset to key to reason."""

    message: str
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A line that the run logged."""

    message: str


RunEvent = Materialized | Failed | Note


@dataclass(frozen=True)
class RunProgress:
    """What happened in a run since a cursor.

    Attributes:
        status: ``QUEUED``, ``STARTED``, ``SUCCESS``, ``FAILURE``, ``CANCELED`` and so on.
        events: in the order they were stored.
        cursor: where to go on from.
        tags: the run's tags.
    """

    status: str
    events: tuple[RunEvent, ...]
    cursor: str | None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def will_be_retried(self) -> bool:
        """True if Dagster starts the run once more, because its process died."""
        return self.status == "FAILURE" and self.tags.get(WILL_RETRY) == "true"

    @property
    def is_undecided(self) -> bool:
        """True if the run failed and Dagster has not noted yet whether it starts it once more.

        It notes that right after the failure is stored; an instance that retries nothing never does.
        """
        return self.status == "FAILURE" and WILL_RETRY not in self.tags

    @property
    def retry_run_id(self) -> str | None:
        """The run that takes this one's place, once Dagster has made it."""
        return self.tags.get("dagster/auto_retry_run_id")

    @property
    def is_finished(self) -> bool:
        """True once the run has ended, whichever way, and all its events have been read."""
        return self.status in FINISHED


@dataclass(frozen=True)
class AssetState:
    """What the code location and the instance know of one asset.

    Attributes:
        code_version: fingerprint of the definition that is loaded.
        statuses: partition key to ``MATERIALIZED``, ``FAILED`` or ``MATERIALIZING``; others are not
            there.
        is_hourly: whether the loaded definition's partitions are hours.
    """

    code_version: str | None
    statuses: Mapping[str, str]
    is_hourly: bool = False


@dataclass(frozen=True)
class ActiveRun:
    """A run that has not ended.

    Attributes:
        created_s: when it was made, epoch seconds.
        what: the assets that it builds, or its job; for people.
    """

    run_id: str
    status: str
    created_s: float
    what: str


class DagsterApi:
    """One webserver and one of its code locations.

    Args:
        url: base URL of the webserver.
        location: name of the code location.
        timeout_s: for each request.
    """

    def __init__(self, url: str, *, location: str = "millrace", timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.location = location
        self._timeout_s = timeout_s

    def launch(
        self,
        assets: Sequence[AssetPath],
        days: Days,
        *,
        job: str = ASSET_JOB,
        by_hour: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start one run that builds a range of days, or of hours, of the assets; returns its id.

        Args:
            assets: their keys.
            days: the range.
            job: of which it is a run; one that has these assets.
            by_hour: the partitions are hours.
            tags: besides those of the range.

        Raises:
            EngineRejected: Dagster refuses, for instance a day outside the partitions.
            EngineUnavailable: the webserver does not answer.
        """
        selector = {
            "repositoryLocationName": self.location,
            "repositoryName": "__repository__",
            "pipelineName": job,
            "assetSelection": [{"path": list(path)} for path in assets],
            # Null asks for every check of these assets; an empty list for none of them.
            "assetCheckSelection": None,
        }
        all_tags = {**range_tags(days, by_hour=by_hour), **(tags or {})}
        parameters = {
            "selector": selector,
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in all_tags.items()]
            },
        }
        answer = self._expect(
            self.query(queries.LAUNCH, {"params": parameters}, timeout_s=_LAUNCH_TIMEOUT_S)[
                "launchPipelineExecution"
            ],
            "LaunchRunSuccess",
            f"a run of {days}",
        )
        return str(answer["run"]["runId"])

    def run_url(self, run_id: str) -> str:
        """Return the run's page in the UI."""
        return f"{self.url}/runs/{run_id}"

    def progress(self, run_id: str, cursor: str | None = None) -> RunProgress:
        """Return the run's status and its events after a cursor.

        The status is read before the events, so a finished run's events are complete.

        Raises:
            EngineRejected: there is no such run.
        """
        run = self._expect(
            self.query(queries.RUN_STATUS, {"run": run_id})["runOrError"], "Run", f"run {run_id}"
        )
        events: list[RunEvent] = []
        more = True
        while more:
            answer = self.query(
                queries.RUN_EVENTS, {"run": run_id, "cursor": cursor, "limit": _PAGE}
            )
            page = self._expect(answer["logsForRun"], "EventConnection", f"run {run_id}")
            events.extend(event for raw in page["events"] for event in _event(raw))
            cursor, more = page["cursor"], page["hasMore"]
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        return RunProgress(str(run["status"]), tuple(events), cursor, tags)

    def runs_before(self, run_id: str) -> tuple[ActiveRun, ...]:
        """Return the runs that have not ended and were made before one of them, oldest first.

        A run that waits in the queue waits for these.
        """
        answer = self._expect(
            self.query(queries.ACTIVE_RUNS, {"limit": _MOST_ACTIVE})["runsOrError"],
            "Runs",
            "the list of runs",
        )
        active = sorted(map(_active, answer["results"]), key=lambda run: run.created_s)
        own = next((run.created_s for run in active if run.run_id == run_id), None)
        return tuple(run for run in active if own is not None and run.created_s < own)

    def asset(self, path: AssetPath) -> AssetState | None:
        """Return an asset's state; None if the code location does not have it."""
        answer = self.query(queries.ASSET, {"key": {"path": list(path)}})["assetNodeOrError"]
        if answer["__typename"] != "AssetNode" or not answer["isMaterializable"]:
            return None
        statuses: dict[str, str] = {}
        for found in answer["assetPartitionStatuses"].get("ranges", []):
            first, last = found["startKey"], found["endKey"]
            for key in partition_keys(key_range(first, last), by_hour=is_hour(first)):
                statuses[key] = str(found["status"])
        form = (answer["partitionDefinition"] or {}).get("fmt") or ""
        return AssetState(answer["opVersion"], statuses, "%H" in form)

    def reload(self) -> str | None:
        """Load the code location again; returns its load error, None if it loaded."""
        answer = self.query(queries.RELOAD, {"location": self.location})
        entry = self._expect(
            answer["reloadRepositoryLocation"],
            "WorkspaceLocationEntry",
            f"code location {self.location}",
        )
        loaded = entry["locationOrLoadError"] or {}
        return str(loaded["message"]) if loaded.get("__typename") == "PythonError" else None

    def terminate(self, run_id: str) -> None:
        """Stop a run; days it has committed stay.

        Raises:
            EngineRejected: there is no such run, or it cannot be stopped any more.
        """
        answer = self.query(queries.TERMINATE, {"run": run_id})["terminateRun"]
        self._expect(answer, "TerminateRunSuccess", f"run {run_id}")

    def query(
        self, text: str, variables: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Return the ``data`` of one GraphQL request.

        Raises:
            EngineUnavailable: no answer, or none that is JSON.
            EngineRejected: the request itself is refused.
        """
        body = json.dumps({"query": text, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310 - the URL is this stack's webserver
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=timeout_s or self._timeout_s
            ) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            detail = error.read(500).decode(errors="replace")
            raise EngineRejected(
                f"Dagster answered {error.code}: {detail}", where=self.url
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise EngineUnavailable(
                f"Dagster does not answer: {error}",
                where=self.url,
                fix="millrace status; millrace up dagster",
            ) from error
        if answer.get("errors"):
            raise EngineRejected(str(answer["errors"][0]["message"]), where=self.url)
        data: dict[str, Any] = answer["data"]
        return data

    def _expect(self, answer: dict[str, Any], kind: str, what: str) -> dict[str, Any]:
        if answer["__typename"] == kind:
            return answer
        message = answer.get("message") or "; ".join(
            str(e["message"]) for e in answer.get("errors", [])
        )
        raise EngineRejected(
            f"Dagster refuses {what}: {message or answer['__typename']}", where=self.url
        )


def _active(raw: Mapping[str, Any]) -> ActiveRun:
    assets = ["/".join(found["path"]) for found in raw["assetSelection"] or ()]
    more = f" and {len(assets) - 1} more" if len(assets) > 1 else ""
    what = f"{assets[0]}{more}" if assets else str(raw["pipelineName"])
    return ActiveRun(str(raw["runId"]), str(raw["status"]), float(raw["creationTime"]), what)


def _event(raw: Mapping[str, Any]) -> Iterator[RunEvent]:
    kind = raw["__typename"]
    if kind == "MaterializationEvent" and raw["assetKey"]:
        metadata = dict(_entry(e) for e in raw["metadataEntries"])
        yield Materialized(tuple(raw["assetKey"]["path"]), raw["partition"], metadata)
    elif kind == "ExecutionStepFailureEvent":
        details = raw["failureMetadata"] or {"metadataEntries": [], "description": None}
        partitions = dict(_entry(e) for e in details["metadataEntries"]).get(FAILURES, {})
        yield Failed(details["description"] or _raised(raw), partitions)
    elif kind == "RunFailureEvent":
        yield Failed(_raised(raw))
    elif kind == "LogMessageEvent" and _UNYIELDED not in raw["message"]:
        yield Note(raw["message"])


def _raised(raw: Mapping[str, Any]) -> str:
    if not raw["error"]:
        return str(raw["message"])
    chain = (raw["error"], *(raw["error"]["causes"] or ()))
    return raised_error((str(one["className"]), str(one["message"])) for one in chain)


def raised_error(chain: Iterable[tuple[str, str]]) -> str:
    """Return what an error says, without what Dagster wraps around it and without what caused it.

    Args:
        chain: class and message of each error, the outermost first; at least one. Dagster's own only
            name the step, or tell that it is tried again; the causes of an error of ours are an
            engine's own words, which it has put into better ones.

    >>> raised_error([
    ...     ("RetryRequested", "Exceeded max_retries of 1"),
    ...     ("EngineUnavailable", "millrace.errors.EngineUnavailable: Spark does not answer"),
    ...     ("SparkConnectGrpcException", "<_InactiveRpcError of RPC that terminated with: …"),
    ... ])
    'Spark does not answer'
    """
    errors = list(chain)
    ours = [message for name, message in errors if name not in _WRAPPERS]
    message = (ours or [message for _, message in errors])[0].strip()
    return re.sub(r"^millrace\.errors\.\w+: ", "", message)


def _entry(raw: Mapping[str, Any]) -> tuple[str, Any]:
    if raw.get("intRepr") is not None:
        return raw["label"], int(raw["intRepr"])
    if raw.get("jsonString") is not None:
        return raw["label"], json.loads(raw["jsonString"])
    values = (raw.get(name) for name in ("floatValue", "text", "boolValue", "url", "path"))
    return raw["label"], next((v for v in values if v is not None), None)
