"""``millrace stream``: what it shows and refuses without any engine running."""

import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cli.main import main
from offline.tables.partition_log import append_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from streaming.control import deployments
from streaming.publications.records import RecordFiles
from streaming.publications.uploaded_views import UploadedFiles, UploadedView
from tests.support.stack_fakes import pretend_running
from tests.support.stream_fakes import FakeEngines, fake_engines, write_views

EDGE_MS = 1_578_182_400_000
"""2020-01-05."""


class Done(NamedTuple):
    """What a call of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
    """Engines in memory, which the command does not know; its own stack does not run."""
    for name in ("MILLRACE_KAFKA", "MILLRACE_FLINK_URL", "MILLRACE_STORE_URL", "MILLRACE_LAKE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path / "views"))
    write_views(tmp_path / "views")
    return fake_engines(tmp_path, views=[tmp_path / "views"])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["millrace", "stream", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


def test_a_view_that_was_never_deployed_is_absent(engines: FakeEngines, run: Run) -> None:
    del engines
    document = run("status", "spend", "--json").document
    assert document["views"] == {
        "spend": {
            "state": "absent",
            "job_id": None,
            "version": None,
            "lag_events": None,
            "checkpoint_age_s": None,
            "detail": "never deployed",
        }
    }
    assert list(document["sources"]) == ["payments"]


def test_without_flink_a_deployed_stream_is_unknown_and_the_mend_is_named(
    engines: FakeEngines, run: Run, tmp_path: Path
) -> None:
    plan = write_views(tmp_path / "views")
    record = deployments.deploy(engines.settings, plan, "spend", lambda _: None, engines=engines)
    [shown] = run("status", "spend", "--json").document["views"].values()
    assert (shown["state"], shown["job_id"]) == ("unknown", record.job_id)
    assert "millrace up flink" in shown["detail"]
    done = run("status", "spend")
    assert done.code == 0
    assert "unknown" in done.out
    assert "millrace up flink" in done.out


def test_a_stop_is_recorded_though_flink_is_away(
    engines: FakeEngines, run: Run, tmp_path: Path
) -> None:
    plan = write_views(tmp_path / "views")
    deployments.deploy(engines.settings, plan, "spend", lambda _: None, engines=engines)
    done = run("stop", "spend")
    assert done.code == 1
    assert "flink of the local stack does not run" in done.err
    record = RecordFiles.of(tmp_path).read("spend")
    assert record is not None
    assert record.desired == "stopped"


def test_unknown_views_are_refused_with_the_nearest_name(engines: FakeEngines, run: Run) -> None:
    del engines
    for verb in ("deploy", "status"):
        done = run(verb, "spent")
        assert done.code == 1
        assert "no feature view 'spent'" in done.err
        assert "did you mean 'spend'?" in done.err
    done = run("restart", "spent")
    assert done.code == 1
    assert "has no stream that was deployed" in done.err


def test_a_view_without_a_stream_is_told_to_be_uploaded_and_nothing_is_started(
    engines: FakeEngines, run: Run, tmp_path: Path
) -> None:
    del engines
    path = next((tmp_path / "views").glob("*.yaml"))
    kept = [line for line in path.read_text().splitlines() if "stream:" not in line]
    path.write_text("\n".join(kept))
    done = run("deploy", "spend")
    assert done.code == 1
    assert "millrace upload spend" in done.err
    assert not (tmp_path / "desired.json").exists()


def test_a_deploy_that_may_start_nothing_says_which_parts_are_missing(
    engines: FakeEngines, run: Run, tmp_path: Path
) -> None:
    del engines
    pretend_running(tmp_path, "store")
    done = run("deploy", "spend", "--no-start")
    assert done.code == 1
    assert "kafka, flink, writer, archive of the local stack do not run" in done.err
    assert "millrace up kafka flink writer archive" in done.err


def test_a_view_of_files_alone_is_said_to_have_no_stream(
    engines: FakeEngines, run: Run, tmp_path: Path
) -> None:
    del engines
    path = next((tmp_path / "views").glob("*.yaml"))
    path.write_text("\n".join(s for s in path.read_text().splitlines() if "stream:" not in s))
    said = run("status", "spend")
    assert said.code == 0
    assert said.out == (
        "spend: source 'payments' has no stream; millrace upload spend publishes it\n"
    )


def test_a_view_that_uploads_serve_says_which_version_answers_and_what_another_waits_for(
    engines: FakeEngines, run: Run, tmp_path: Path
) -> None:
    path = next((tmp_path / "views").glob("*.yaml"))
    path.write_text("\n".join(s for s in path.read_text().splitlines() if "stream:" not in s))
    fingerprint = plan_of([path]).view("spend").fingerprint
    record = UploadedView("spend", "v1", fingerprint, {}, "t", (), EDGE_MS, None)
    UploadedFiles.of(tmp_path).write(record)
    assert run("status", "spend").out == "spend: v1 serves what was uploaded of it\n"
    document = run("status", "--json").document
    assert document["uploads"] == {
        "spend": {"state": "serving", "version": "v1", "cut_over_ms": EDGE_MS}
    }
    # Its declaration changes; of the days that v1 answers from none is built anew.
    report = BuildReport("tiles/spend/v1", "v1", 0, (PartitionOutcome(date(2020, 1, 4)),))
    append_partition_log(engines.settings, report, fingerprint)
    path.write_text(path.read_text().replace("amount > 0", "amount > 100"))
    said = run("status", "spend").out
    assert said.startswith("spend: v1 serves until a new version is complete: 1 day(s) of ")
    assert "millrace backfill spend --start 2020-01-04 --end 2020-01-05" in said
    waits = run("status", "spend", "--json").document["uploads"]["spend"]["waits_for"]
    assert waits["missing_days"] == ["2020-01-04"]
    assert waits["job"] == "build_history"
