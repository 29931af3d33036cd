"""The records of streams and of uploads: one keeper, whose word is on disk before it is acted on."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millrace.errors import SetupError
from streaming.publications.records import JobDefinition, RecordFiles, StreamRecord
from streaming.publications.uploaded_views import UploadedFiles, UploadedView
from streaming.publications.view_files import ViewFiles

STREAM = StreamRecord(
    view="spend",
    desired="running",
    version="v1",
    fingerprint="a" * 16,
    definition=JobDefinition("INSERT", {}, "jar"),
    serving={},
    source_topic="payments",
    tile_topic="tiles",
    flink_group="group",
    folders=("/views",),
    generation=1,
    job_id="1" * 32,
    submitted_at_ms=1,
)
UPLOADED = UploadedView(
    view="spend",
    version="v1",
    fingerprint="a" * 16,
    serving={},
    tile_topic="tiles",
    folders=("/views",),
    cut_over_ms=1,
    sealed_before_ms=None,
)
KEEPERS = pytest.mark.parametrize(
    ("of", "record"),
    [
        pytest.param(RecordFiles.of, STREAM, id="streams"),
        pytest.param(UploadedFiles.of, UPLOADED, id="uploads"),
    ],
)
Of = Callable[[Path], ViewFiles[Any]]


@KEEPERS
def test_a_record_comes_back_as_it_was_written(of: Of, record: Any, tmp_path: Path) -> None:
    files = of(tmp_path)
    assert files.read("spend") is None
    files.write(record)
    assert files.read_all() == {"spend": record}
    files.remove("spend")
    assert files.read_all() == {}


@KEEPERS
def test_a_record_is_on_disk_before_it_takes_the_place_of_the_one_before(
    of: Of, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = of(tmp_path)
    files.write(record)
    seen = []

    def fsync(descriptor: int) -> None:
        found = files.read("spend")
        assert found is not None
        seen.append((Path(f"/proc/self/fd/{descriptor}").resolve().suffix, found.version))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write(replace(record, version="v2"))
    # First what it holds, under another name; then that it has this name.
    assert seen == [(".new", "v1"), ("", "v2")]


@KEEPERS
def test_a_record_that_cannot_be_read_or_kept_says_where_and_how_to_mend(
    of: Of, record: Any, tmp_path: Path
) -> None:
    files = of(tmp_path)
    files.write(record)
    (files.folder / "spend.json").write_text("{")
    with pytest.raises(SetupError, match="cannot be read") as broken:
        files.read("spend")
    assert "spend.json" in broken.value.where
    assert "remove it" in broken.value.fix
    with pytest.raises(SetupError, match="cannot be kept") as full:
        of(Path(files.folder / "spend.json")).write(record)
    assert "MILLRACE_HOME" in full.value.fix
