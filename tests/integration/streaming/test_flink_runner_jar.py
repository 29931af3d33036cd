"""The jar of the stream jobs is made from its sources, alike everywhere."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.compile.flink import FUNCTIONS
from millrace.errors import SetupError
from resources.flink.distribution import connector_jars, ecj_jar, flink_lib, java_executable
from resources.jvm.source_jar import JavaSources, java_jar
from resources.settings import settings_from_env
from streaming.runner.build import SOURCES

pytestmark = pytest.mark.services


def built(cache: Path, sources: JavaSources = SOURCES) -> Path:
    own = settings_from_env().cache
    libraries = [*sorted(flink_lib(own).glob("*.jar")), *connector_jars(own)]
    return java_jar(sources, cache, libraries, ecj_jar(own), java_executable())


def test_two_builds_give_the_same_bytes_and_a_third_is_found(tmp_path: Path) -> None:
    first, second = built(tmp_path / "a"), built(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    written = first.stat().st_mtime_ns
    assert built(tmp_path / "a") == first
    assert first.stat().st_mtime_ns == written
    assert [path.name for path in first.parent.iterdir()] == [SOURCES.jar_name]


def test_the_jar_holds_every_function_and_the_connector(tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(built(tmp_path)).namelist())
    classes = {f"{name.replace('.', '/')}.class" for name in FUNCTIONS.values()}
    assert classes <= names
    assert "META-INF/services/org.apache.flink.table.factories.Factory" in names


def test_sources_that_do_not_compile_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "src"
    shutil.copytree(SOURCES.folder, broken)
    (broken / "millrace" / "flink" / "EpochMs.java").write_text("class EpochMs { int x = y; }")
    with pytest.raises(SetupError) as caught:
        built(tmp_path / "cache", replace(SOURCES, folder=broken))
    assert "y cannot be resolved" in caught.value.what
    assert caught.value.where == str(broken)
    assert not list((tmp_path / "cache").rglob("*.jar"))
