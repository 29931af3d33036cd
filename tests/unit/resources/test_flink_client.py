"""The client of Flink's REST API: what it makes of answers, refusals and silence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from millrace.errors import EngineRejected, EngineUnavailable
from resources.flink.rest import FlinkCluster, newest_checkpoint, root_cause
from tests.support.background_server import in_background

JOB = "a" * 32
TRACE = (
    "org.apache.flink.runtime.rest.handler.RestHandlerException: Could not execute application.\n"
    "\tat org.apache.flink.A.b(A.java:1)\n"
    "Caused by: java.util.concurrent.CompletionException: outer\n"
    "\t... 2 more\n"
    "Caused by: org.apache.calcite.sql.parser.SqlParseException: Encountered 'FORM' at line 1\n"
    "Was expecting one of:\n    <EOF>\n"
    "\tat org.apache.calcite.B.c(B.java:2)\n"
)


@contextmanager
def answering(answers: dict[str, tuple[int, Any]]) -> Iterator[FlinkCluster]:
    """A server that knows these paths only; a value that is no document is sent as it is."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = answers.get(self.path, (404, {"errors": ["not found"]}))
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names http.server calls

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with in_background(server):
        yield FlinkCluster(f"http://127.0.0.1:{server.server_port}/")


def job(state: str, *vertices: str) -> dict[str, Any]:
    listed = [{"id": str(i), "name": f"v{i}", "status": s} for i, s in enumerate(vertices)]
    return {"jid": JOB, "name": "spend", "state": state, "start-time": 5, "vertices": listed}


def test_a_job_runs_only_if_all_its_tasks_do() -> None:
    for vertices, runs in ((["RUNNING"] * 2, True), (["RUNNING", "CREATED"], False), ([], False)):
        with answering({f"/jobs/{JOB}": (200, job("RUNNING", *vertices))}) as flink:
            report = flink.job(JOB)
        assert report is not None
        assert (report.state, report.name, report.start_ms) == ("RUNNING", "spend", 5)
        assert report.is_running is runs


def test_an_unknown_job_is_none_and_has_nothing() -> None:
    with answering({}) as flink:
        assert flink.job(JOB) is None
        assert flink.exceptions(JOB) is None
        assert flink.checkpoints(JOB).completed == 0
        assert flink.metrics(JOB, ["numRecordsIn"]) == {}
        flink.cancel(JOB)


def test_a_job_that_was_just_submitted_has_no_checkpoints_yet() -> None:
    document = {"counts": {"completed": 0}, "latest": {"completed": None}}
    with answering({f"/jobs/{JOB}/checkpoints": (200, document)}) as flink:
        assert flink.checkpoints(JOB).latest_path is None


def test_checkpoints_tell_where_the_newest_lies_and_how_old_it_is() -> None:
    latest = {"external_path": "file:/chk-3", "latest_ack_timestamp": 1_000}
    document = {"counts": {"completed": 3}, "latest": {"completed": latest}}
    with answering({f"/jobs/{JOB}/checkpoints": (200, document)}) as flink:
        report = flink.checkpoints(JOB)
    assert (report.completed, report.latest_path, report.latest_ms) == (3, "file:/chk-3", 1_000)
    assert report.age_s is not None
    assert report.age_s > 1e9


def test_a_refusal_says_what_flink_says_without_the_trace() -> None:
    refusal = {"errors": ["Internal error.", TRACE]}
    known = {"/jars/j/run": (400, refusal)}
    with answering(known) as flink, pytest.raises(EngineRejected) as caught:
        flink.run("j", "SELECT", JOB, {}, 1)
    assert caught.value.what == "Flink refuses: Encountered 'FORM' at line 1"


def test_a_refused_job_that_flink_knows_already_was_submitted_before() -> None:
    known = {
        "/jars/j/run": (400, {"errors": ["Job has already been submitted."]}),
        f"/jobs/{JOB}": (200, job("RUNNING", "RUNNING")),
    }
    with answering(known) as flink:
        assert flink.run("j", "SELECT", JOB, {}, 1) == JOB


@pytest.mark.parametrize(
    "answer", [(503, {"errors": ["Service temporarily unavailable"]}), (200, b"<html>")]
)
def test_who_cannot_answer_yet_is_worth_another_try(answer: tuple[int, Any]) -> None:
    does_not = pytest.raises(EngineUnavailable, match="Flink does not answer")
    with answering({"/overview": answer}) as flink, does_not:
        flink.overview()


def test_a_cluster_that_is_away_is_unavailable() -> None:
    with answering({}) as flink:
        pass
    with pytest.raises(EngineUnavailable) as caught:
        flink.job(JOB)
    assert caught.value.fix == "millrace up flink"
    assert caught.value.retryable


def test_a_savepoint_that_failed_says_why() -> None:
    failed = {
        "status": {"id": "COMPLETED"},
        "operation": {"failure-cause": {"stack-trace": "a.B: x\nCaused by: c.D: disk full\n"}},
    }
    known = {
        f"/jobs/{JOB}/stop": (202, {"request-id": "t"}),
        f"/jobs/{JOB}/savepoints/t": (200, failed),
    }
    with answering(known) as flink, pytest.raises(EngineRejected, match="no savepoint: disk full"):
        flink.stop_with_savepoint(JOB)


def test_the_newest_checkpoint_is_the_highest_that_was_finished(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, JOB) is None
    for number, is_complete in ((9, True), (10, True), (11, False)):
        folder = tmp_path / JOB / f"chk-{number}"
        folder.mkdir(parents=True)
        if is_complete:
            (folder / "_metadata").touch()
    assert newest_checkpoint(tmp_path, JOB) == tmp_path / JOB / "chk-10"


@pytest.mark.parametrize(
    ("trace", "cause"),
    [
        (TRACE, "Encountered 'FORM' at line 1"),
        ("java.lang.NullPointerException\n\tat a.b(c)\n", "java.lang.NullPointerException"),
        ("plain words", "plain words"),
        ("a.B: two\nlines\n\tat c.d(e)\n", "two\nlines"),
    ],
)
def test_the_root_cause_is_the_innermost_message(trace: str, cause: str) -> None:
    assert root_cause(trace) == cause
