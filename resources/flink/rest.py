"""The door to Flink: a client of the JobManager's REST API.

Jobs are SQL scripts run by the runner jar. Each is submitted under an id that the caller chose, so
a submission that is repeated, because its answer was lost, never starts a twin.
"""

import base64
import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

from millrace.errors import EngineRejected, EngineUnavailable

_TIMEOUT_S = 15.0
_SUBMIT_TIMEOUT_S = 120.0
"""Flink plans a job before it answers; the first one loads the planner."""
_STOP_TIMEOUT_S = 120.0
_POLL_S = 0.1
_ENTRY_CLASS = "millrace.flink.SqlRunner"
_ELASTIC = ("kubernetes.", "yarn.")
"""Settings that only a cluster has that makes its own TaskManagers."""
_MOST_CHARACTERS = 2000
"""Of a message of Flink's."""


@dataclass(frozen=True)
class JobReport:
    """What Flink says of a job.

    Attributes:
        state: ``RUNNING``, ``RESTARTING``, ``FAILED``, … in Flink's own words.
        name: of its ``pipeline.name``.
        start_ms: when it was submitted; epoch milliseconds.
        vertices: state of each vertex by its name; empty in a list of jobs.
        is_running: the job and every task of it run. A job whose TaskManager was lost goes on
            being called RUNNING for a while.
    """

    job_id: str
    state: str
    name: str = ""
    start_ms: int = 0
    vertices: Mapping[str, str] = field(default_factory=dict)
    is_running: bool = False


@dataclass(frozen=True)
class CheckpointReport:
    """What Flink says of a job's checkpoints, since it knows the job.

    Attributes:
        completed: how many.
        latest_path: where the newest lies; None before the first.
        latest_ms: when it was complete; epoch milliseconds.
        age_s: how long ago that was.
    """

    completed: int
    latest_path: str | None = None
    latest_ms: int | None = None
    age_s: float | None = None


@dataclass(frozen=True)
class Slots:
    """Room for jobs.

    Attributes:
        total: slots of all TaskManagers that are registered.
        free: those of them that no job holds.
        is_elastic: the cluster starts TaskManagers as jobs need them (Kubernetes, YARN), so that what
            is free now says nothing.
    """

    total: int
    free: int
    is_elastic: bool = False


class FlinkCluster:
    """A Flink session cluster.

    Every method raises ``EngineUnavailable`` where the JobManager does not answer, and
    ``EngineRejected`` with Flink's own message where it refuses.

    Args:
        url: of the REST API.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def overview(self) -> Mapping[str, Any]:
        """Return Flink's overview: TaskManagers, slots, counts of jobs, version."""
        answer: Mapping[str, Any] = self._ask("GET", "/overview")
        return answer

    def slots(self) -> Slots:
        """Return how many slots there are, and are free."""
        seen = self.overview()
        settings = {entry["key"] for entry in self._ask("GET", "/jobmanager/config")}
        return Slots(
            int(seen["slots-total"]),
            int(seen["slots-available"]),
            any(key.startswith(_ELASTIC) for key in settings),
        )

    # -- jars and submission --------------------------------------------------------------------

    def ensure_jar(self, path: Path) -> str:
        """Return the id under which the cluster holds a jar; it is uploaded if it is not there.

        A jar is known by a name that carries its content's hash.
        """
        content = path.read_bytes()
        name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:16]}.jar"
        for jar in self._ask("GET", "/jars")["files"]:
            if jar["name"] == name:
                return str(jar["id"])
        boundary = uuid4().hex
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="jarfile"; filename="{name}"\r\n'
            "Content-Type: application/x-java-archive\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        content_type = f"multipart/form-data; boundary={boundary}"
        answer = self._checked(*self._send("POST", "/jars/upload", body, content_type))
        return str(answer["filename"]).rpartition("/")[2]

    def run(
        self,
        jar_id: str,
        script: str,
        job_id: str,
        configuration: Mapping[str, str],
        parallelism: int,
        restore_from: str | None = None,
    ) -> str:
        """Submit a script as a job; one that Flink knows under the id already stays as it is.

        Args:
            jar_id: of the runner jar.
            script: SQL, as ``millrace.compile.flink.StreamJob.script`` has it.
            job_id: 32 hex digits.
            configuration: settings of the job, over those of the cluster.
            parallelism: of every operator.
            restore_from: a checkpoint or savepoint of the same script. It stays the caller's:
                the job never deletes it.

        Returns:
            The job's id. The job may still be starting.

        Raises:
            EngineRejected: the SQL or a setting is wrong, or the state does not fit.
        """
        body = _submission(script, job_id, configuration, parallelism)
        if restore_from is not None:
            body |= {
                "savepointPath": restore_from,
                "claimMode": "NO_CLAIM",
                "allowNonRestoredState": False,
            }
        try:
            self._ask("POST", f"/jars/{jar_id}/run", body, timeout_s=_SUBMIT_TIMEOUT_S)
        except EngineRejected:
            if self.job(job_id) is None:
                raise
        return job_id

    def plan(
        self, jar_id: str, script: str, configuration: Mapping[str, str], parallelism: int = 1
    ) -> Mapping[str, Any]:
        """Plan a script without running it; returns Flink's job graph.

        Raises:
            EngineRejected: the SQL or a setting is wrong.
        """
        body = _submission(script, uuid4().hex, configuration, parallelism)
        answer = self._ask("POST", f"/jars/{jar_id}/plan", body, timeout_s=_SUBMIT_TIMEOUT_S)
        graph: Mapping[str, Any] = answer["plan"]
        return graph

    # -- jobs -----------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobReport | None:
        """Return a job's state; None if this JobManager does not know it."""
        answer = self._find(f"/jobs/{job_id}")
        if answer is None:
            return None
        vertices = {vertex["name"]: str(vertex["status"]) for vertex in answer["vertices"]}
        runs = answer["state"] == "RUNNING" and set(vertices.values()) == {"RUNNING"}
        return JobReport(
            job_id, answer["state"], answer["name"], answer["start-time"], vertices, is_running=runs
        )

    def jobs(self) -> list[JobReport]:
        """Return all jobs that this JobManager knows, also those that ended."""
        return [_listed(entry) for entry in self._ask("GET", "/jobs/overview")["jobs"]]

    def cancel(self, job_id: str) -> None:
        """Cancel a job; it may take a moment to end. Unknown or ended: nothing happens."""
        status, answer = self._send("PATCH", f"/jobs/{job_id}?mode=cancel")
        if status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            self._checked(status, answer)

    def stop_with_savepoint(self, job_id: str) -> str:
        """Stop a job and keep its state.

        Returns:
            Where the savepoint lies, once the job has ended. The job's own checkpoints are gone
            then.

        Raises:
            EngineRejected: the job does not run, or the savepoint failed; it goes on running.
        """
        body = {"drain": False, "formatType": "NATIVE"}
        trigger = self._ask("POST", f"/jobs/{job_id}/stop", body)["request-id"]
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        path = None
        while time.monotonic() < deadline:
            if path is None:
                path = self._savepoint(job_id, trigger)
            elif (job := self.job(job_id)) is None or job.state == "FINISHED":
                return path
            time.sleep(_POLL_S)
        raise EngineUnavailable(
            f"job {job_id} did not stop within {_STOP_TIMEOUT_S:.0f} s",
            where=self._url,
            fix="look at its checkpoints in Flink's own pages",
        )

    def _savepoint(self, job_id: str, trigger: str) -> str | None:
        answer = self._ask("GET", f"/jobs/{job_id}/savepoints/{trigger}")
        if answer["status"]["id"] != "COMPLETED":
            return None
        failure = answer["operation"].get("failure-cause")
        if failure:
            cause = root_cause(failure["stack-trace"])
            raise EngineRejected(f"job {job_id} took no savepoint: {cause}", where=self._url)
        return str(answer["operation"]["location"])

    def checkpoints(self, job_id: str) -> CheckpointReport:
        """Return what is known of a job's checkpoints; an unknown job has none."""
        answer = self._find(f"/jobs/{job_id}/checkpoints")
        # A job that has just been submitted answers without either.
        latest = ((answer or {}).get("latest") or {}).get("completed")
        completed = int(((answer or {}).get("counts") or {}).get("completed", 0))
        if not latest:
            return CheckpointReport(completed)
        at_ms = int(latest["latest_ack_timestamp"])
        age_s = round(max(0.0, datetime.now(tz=UTC).timestamp() - at_ms / 1000), 3)
        return CheckpointReport(completed, latest["external_path"], at_ms, age_s)

    def exceptions(self, job_id: str) -> str | None:
        """Return the root cause of a job's last failure; None if it never failed."""
        answer = self._find(f"/jobs/{job_id}/exceptions?maxExceptions=1")
        entries = ((answer or {}).get("exceptionHistory") or {}).get("entries", [])
        return root_cause(entries[0]["stacktrace"]) if entries else None

    def metrics(self, job_id: str, names: Iterable[str]) -> Mapping[str, Mapping[str, float]]:
        """Return metrics of each vertex by its name, summed over its subtasks.

        A metric that a vertex does not have is absent there; an unknown job has no vertices.
        """
        job = self._find(f"/jobs/{job_id}")
        wanted = ",".join(names)
        found = {}
        for vertex in (job or {}).get("vertices", []):
            path = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/metrics"
            sums = self._find(f"{path}?get={wanted}&agg=sum") or []
            found[vertex["name"]] = {entry["id"]: float(entry["sum"]) for entry in sums}
        return found

    # -- HTTP -----------------------------------------------------------------------------------

    def _find(self, path: str) -> Any:
        status, answer = self._send("GET", path)
        return None if status == HTTPStatus.NOT_FOUND else self._checked(status, answer)

    def _ask(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = _TIMEOUT_S
    ) -> Any:
        content = None if body is None else json.dumps(body).encode()
        return self._checked(*self._send(method, path, content, timeout_s=timeout_s))

    def _checked(self, status: int, answer: Any) -> Any:
        if status < HTTPStatus.BAD_REQUEST:
            return answer
        errors = answer.get("errors") if isinstance(answer, dict) else None
        # The last is the longest: the stack trace of what the first only names.
        message = root_cause(str(errors[-1])) if errors else f"it answered {status}"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise self._unavailable(message)
        raise EngineRejected(f"Flink refuses: {message}", where=self._url)

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        content_type: str = "application/json",
        *,
        timeout_s: float = _TIMEOUT_S,
    ) -> tuple[int, Any]:
        request = urllib.request.Request(  # noqa: S310 - the JobManager's own address
            self._url + path, content, {"Content-Type": content_type}, method=method
        )
        try:
            try:
                answer = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
            except urllib.error.HTTPError as refusal:
                answer = refusal
            with answer:
                return answer.status, json.loads(answer.read() or b"null")
        except (OSError, HTTPException, ValueError) as error:
            raise self._unavailable(str(error)) from error

    def _unavailable(self, cause: str) -> EngineUnavailable:
        return EngineUnavailable(
            f"Flink does not answer: {cause}", where=self._url, fix="millrace up flink"
        )


def newest_checkpoint(root: Path, job_id: str) -> Path | None:
    """Return the newest complete checkpoint that a job left behind; None if there is none.

    Args:
        root: the folder that ``execution.checkpointing.dir`` names.
        job_id: the job that wrote it, still known to Flink or not.
    """
    # Without this file a checkpoint was never finished, or is being deleted.
    complete = (path.parent for path in (root / job_id).glob("chk-*/_metadata"))
    return max(complete, key=lambda path: int(path.name.removeprefix("chk-")), default=None)


def root_cause(trace: str) -> str:
    r"""Return the message of the innermost cause of a Java stack trace, without its frames.

    >>> root_cause("a.B: outer\n\tat x\nCaused by: c.D: inner\nline two\n\tat y\n")
    'inner\nline two'
    """
    innermost = re.split(r"^Caused by: ", trace, flags=re.MULTILINE)[-1]
    message = re.split(r"^\s*(?:at |\.\.\. )", innermost, maxsplit=1, flags=re.MULTILINE)[0].strip()
    # The parser names everything that it would have taken.
    message = message.partition("\nWas expecting one of:")[0]
    without_class = re.sub(r"^(?:[\w$]+\.)+[\w$]+(?:: |$)", "", message)
    return (without_class or message)[:_MOST_CHARACTERS]


def _listed(entry: Mapping[str, Any]) -> JobReport:
    tasks = entry["tasks"]
    runs = entry["state"] == "RUNNING" and tasks["running"] == tasks["total"]
    return JobReport(
        entry["jid"], entry["state"], entry["name"], entry["start-time"], is_running=runs
    )


def _submission(
    script: str, job_id: str, configuration: Mapping[str, str], parallelism: int
) -> dict[str, Any]:
    return {
        "entryClass": _ENTRY_CLASS,
        "programArgsList": [base64.b64encode(script.encode()).decode()],
        "jobId": job_id,
        "parallelism": parallelism,
        "flinkConfiguration": dict(configuration),
    }
