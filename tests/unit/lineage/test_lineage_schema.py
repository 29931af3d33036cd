"""Every event and every facet that the platform tells is what the official schemas say."""

import json
from pathlib import Path

import dagster as dg
import pytest

from jobs.instance.lineage import tick
from resources.settings import settings_from_env
from tests.support.lineage_cases import LineageStack, Spec, enclosing

TOLD = {
    "dataset.columnLineage",
    "dataset.dataQualityMetrics",
    "dataset.dataSource",
    "dataset.datasetType",
    "dataset.lifecycleStateChange",
    "dataset.lineage",
    "dataset.schema",
    "dataset.storage",
    "dataset.symlinks",
    "dataset.version",
    "inputFacets.dataQualityAssertions",
    "inputFacets.dataQualityMetrics",
    "inputFacets.inputStatistics",
    "inputFacets.subset",
    "job.documentation",
    "job.jobType",
    "job.ownership",
    "job.sourceCodeLocation",
    "job.sql",
    "job.tags",
    "dataset.documentation",
    "dataset.ownership",
    "dataset.tags",
    "outputFacets.outputStatistics",
    "outputFacets.subset",
    "run.errorMessage",
    "run.executionParameters",
    "run.millrace_archive",
    "run.millrace_stream",
    "run.nominalTime",
    "run.parent",
    "run.processing_engine",
    "run.tags",
    "run.test",
}


@pytest.fixture(scope="module")
def spec() -> Spec:
    return Spec(Path(settings_from_env().data or "") / "openlineage_spec")


@pytest.mark.shared_data
def test_every_event_and_facet_is_valid_by_the_schema_it_names(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        stack = LineageStack(tmp_path, monkeypatch, instance, is_described=True)
        stack.build()
        stack.offline.bad = {"features/spend": dict.fromkeys(stack.days, "no disk")}
        stack.build()
        stack.deploy()
        stack.observe()
        stack.stop()
        stack.archive()
        stack.upload()
        stack.train()
        with pytest.raises(OSError, match="full"):
            stack.train(fails=True)
        stack.check(part_of=enclosing())
        tick(stack.settings, instance)
        events = stack.events()
    kinds = {e["schemaURL"].rpartition("/")[2] for e in events}
    assert kinds == {"RunEvent", "JobEvent", "DatasetEvent"}
    assert {e.get("eventType") for e in events} == {
        None, "START", "RUNNING", "COMPLETE", "FAIL", "ABORT"
    }  # fmt: skip
    assert [f for event in events for f in spec.faults(event)] == []
    assert spec.facets_seen == TOLD
    assert "is lost" not in caplog.text


@pytest.mark.shared_data
def test_the_schemas_do_find_faults(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        stack = LineageStack(tmp_path, monkeypatch, instance)
        stack.check()
        event = json.dumps(stack.events()[-1])
    for right, wrong in (
        ('"status": "skip"', '"state": "skip"'),
        ('"success": true', '"success": "yes"'),
        ('"COMPLETE"', '"DONE"'),
        ('"nullCount": 6', '"nullCount": "six"'),
    ):
        assert right in event
        assert spec.faults(json.loads(event.replace(right, wrong))) != []
