"""Reading files and folders: what is read, in which order, and what cannot be."""

from pathlib import Path

import pytest

from millrace.errors import SpecError
from resources.declarations import (
    load_declared,
    load_plan,
    load_valid_plan,
    plan_of,
    refuse_empty,
)
from resources.settings import Settings, settings_from_env

SOURCE = """
sources:
  - name: s
    columns: {ts: timestamp, k: int64}
    event_time: ts
    batch: {format: csv, path: s.csv}
entities: [{name: e, join_key: k, type: int64}]
"""
VIEW = """
feature_views:
  - name: NAME
    entity: e
    source: s
    start: 2020-01-01
    features: [{name: n_1h, aggregate: count, window: 1h}]
"""
PYTHON_VIEW = """
from millrace import FeatureView, count

view = FeatureView("in_python", entity="e", source="s", start="2020-01-01", features=count().over("1h"))
"""


def views(tmp_path: Path, **files: str) -> Settings:
    """Return settings whose only declarations are these files; ``a__yaml`` is ``a.yaml``."""
    for name, text in files.items():
        path = tmp_path / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return settings_of(tmp_path)


def settings_of(*folders: Path) -> Settings:
    """Return settings that name these folders instead of the repository's."""
    return Settings(
        home=Path("/nowhere"), cache=Path("/nowhere"), views=folders, data=None, lake="/nowhere",
        spark_remote=None, kafka=None, flink_url=None, store_url=None,
    )  # fmt: skip


def faults_of(settings: Settings) -> list[str]:
    """Return all faults, with their places and mends."""
    with pytest.raises(SpecError) as caught:
        load_plan(settings)
    return [f"{f.where}: {f.what} | {f.fix}" for f in caught.value.faults]


def test_the_repository_s_own_views_have_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLRACE_VIEWS", raising=False)
    assert load_plan(settings_from_env()).views


def test_yaml_and_python_in_folders_make_one_plan(tmp_path: Path) -> None:
    settings = views(
        tmp_path, b__yaml=VIEW.replace("NAME", "two"), a__yml=SOURCE, deep___c__py=PYTHON_VIEW,
        deep___er___d__yaml=VIEW.replace("NAME", "three"),
    )  # fmt: skip
    assert list(load_plan(settings).views) == ["two", "in_python", "three"]


def test_private_and_other_files_are_left_out(tmp_path: Path) -> None:
    settings = views(
        tmp_path, a__yaml=SOURCE, _draft__yaml="]", notes__md="]", __pycache_____x__py="]"
    )
    (tmp_path / ".hidden.yaml").write_text("]", encoding="utf-8")
    assert list(load_plan(settings).sources) == ["s"]


def test_a_folder_named_twice_is_read_once(tmp_path: Path) -> None:
    views(tmp_path, a__yaml=SOURCE, sub___b__yaml=VIEW.replace("NAME", "v"))
    settings = settings_of(tmp_path, tmp_path, tmp_path / "sub")
    assert list(load_plan(settings).views) == ["v"]


def test_faults_of_all_files_come_together_by_file_and_line(tmp_path: Path) -> None:
    settings = views(
        tmp_path,
        b__yaml=SOURCE.replace("event_time: ts", "event_time: tss"),
        a__yaml=VIEW.replace("NAME", "one").replace("1h}", "1x}").replace("2020", "20"),
        c__py="x = 1 / 0\n",
    )
    places = [fault.split(": ")[0].rpartition("/")[2] for fault in faults_of(settings)]
    assert places == ["a.yaml:6", "a.yaml:7", "b.yaml:5", "c.py:1"]


def test_a_file_that_cannot_be_read_hides_no_names_of_others(tmp_path: Path) -> None:
    settings = views(tmp_path, a__yaml="sources: [", b__yaml=VIEW.replace("NAME", "one"))
    assert len(faults_of(settings)) == 1


def test_a_missing_folder_of_millrace_views_is_a_fault(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (only,) = faults_of(settings_of(own, tmp_path / "gone"))
    assert only.startswith(f"{tmp_path}/gone: there is no such file or folder")
    assert "MILLRACE_VIEWS" in only


def test_without_a_folder_of_its_own_only_the_others_are_read(tmp_path: Path) -> None:
    views(tmp_path, a__yaml=SOURCE)
    assert list(load_plan(settings_of(tmp_path / "no_checkout", tmp_path)).sources) == ["s"]


def test_a_file_that_is_not_utf8_is_a_fault_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"version: millrace/v1\n# caf\xe9\n")
    (only,) = faults_of(settings_of(tmp_path))
    assert "a.yaml:2: the file is not UTF-8: byte 0xe9 | save it as UTF-8" in only


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SOURCE, encoding="utf-8-sig")
    (tmp_path / "b.py").write_text("x = 1\n", encoding="utf-8-sig")
    assert list(load_plan(settings_of(tmp_path)).sources) == ["s"]


def test_a_file_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone.yaml")
    (only,) = faults_of(settings_of(tmp_path))
    assert "a.yaml: the file cannot be read: No such file or directory" in only


def test_another_kind_of_file_is_refused_when_named(tmp_path: Path) -> None:
    views(tmp_path, notes__md="")
    with pytest.raises(SpecError, match="no file of declarations") as caught:
        plan_of([tmp_path / "notes.md"])
    assert "*.yaml" in caught.value.fix


def test_two_files_of_one_view_name_both_places(tmp_path: Path) -> None:
    settings = views(
        tmp_path, a__yaml=SOURCE + VIEW.replace("NAME", "v"), b__yaml=VIEW.replace("NAME", "v")
    )
    (only,) = faults_of(settings)
    assert "b.yaml:3: a feature view named 'v' is declared already at" in only
    assert "a.yaml:10" in only


def test_specs_are_returned_as_written(tmp_path: Path) -> None:
    settings = views(tmp_path, a__yaml=SOURCE + VIEW.replace("NAME", "v"))
    specs, plan = load_declared(settings)
    assert [view.name for view in specs.views] == list(plan.views) == ["v"]


def test_specs_of_a_faulty_file_raise(tmp_path: Path) -> None:
    settings = views(tmp_path, a__yaml="sources: 3")
    with pytest.raises(SpecError, match="sources is the text '3', not a list"):
        load_declared(settings)


def test_files_without_fault_can_be_had_alone(tmp_path: Path) -> None:
    settings = views(
        tmp_path, a__yaml=SOURCE + VIEW.replace("NAME", "good"), b__yaml="sources: 3",
        c__yaml=VIEW.replace("NAME", "bad").replace("source: s", "source: t"),
    )  # fmt: skip
    plan, faults = load_valid_plan(settings)
    assert list(plan.views) == ["good"]
    assert len(faults) == 2


def test_where_a_file_lies_below_the_working_folder_its_path_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = views(tmp_path, a__yaml="sources: 3")
    monkeypatch.chdir(tmp_path)
    assert faults_of(settings)[0].startswith("a.yaml:1: ")


def test_linked_folders_and_any_case_of_an_ending_are_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    views(elsewhere, views__YAML=SOURCE + VIEW.replace("NAME", "v"))
    folder = tmp_path / "views"
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    assert list(load_plan(settings_of(folder)).views) == ["v"]


def test_a_named_folder_without_declarations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no declaration", encoding="utf-8")
    with pytest.raises(SpecError, match="holds no file of declarations") as caught:
        refuse_empty([tmp_path])
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "views.yml").write_text(SOURCE, encoding="utf-8")
    refuse_empty([tmp_path])
