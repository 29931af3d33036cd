"""Which days of a source have come, by what a look at its files knows."""

import gzip
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from offline.raw.arrivals import Arrivals
from offline.raw.files import Looks
from offline.raw.parquet import Footer, read_footer
from resources.declarations import plan_of
from resources.settings import settings_from_env
from tests.support.file_drops import (
    FIRST,
    HEAD,
    MORNING,
    SECOND,
    THIRD,
    Drop,
    at,
    events,
    ms,
    stamped,
)

MakeDrop = Callable[[str, str], Drop]


@pytest.fixture
def drop(tmp_path: Path) -> MakeDrop:
    return lambda path, form: Drop(tmp_path, path, form)


# Names that tell their day.


def test_a_day_is_there_once_a_file_of_its_name_is(drop: MakeDrop) -> None:
    found = drop("{date}.csv", "csv")
    assert not found.look().has(FIRST, MORNING)
    found.csv(f"{SECOND}.csv", 2, at(SECOND, 23))
    look = found.look()
    assert (look.has(FIRST, MORNING), look.has(SECOND, MORNING)) == (False, True)
    assert look.is_known_absent(FIRST)
    assert look.looked_for(FIRST, MORNING) == (
        f"2031-03-01 waits for a file of that name, {found.folder}/raw/{{date}}.csv; "
        "the newest is of 2031-03-02"
    )


def test_a_file_without_rows_says_that_its_day_has_none(drop: MakeDrop) -> None:
    found = drop("{date}.csv", "csv")
    found.csv(f"{FIRST}.csv", 0, at(SECOND))
    stamped_empty = found.folder / "raw" / f"{SECOND}.csv"
    stamped_empty.touch()
    stamped(stamped_empty, at(THIRD))
    assert all(found.look().has(day, MORNING) for day in (FIRST, SECOND))


def test_a_broken_file_of_a_day_is_there_and_fails_by_name(drop: MakeDrop) -> None:
    found = drop("{date}.csv.gz", "csv")
    path = found.folder / "raw" / f"{FIRST}.csv.gz"
    path.write_bytes(gzip.compress(HEAD.encode())[:12])
    stamped(path, at(SECOND))
    assert found.look().has(FIRST, MORNING)


def test_a_file_that_is_still_being_written_is_waited_for(drop: MakeDrop) -> None:
    found = drop("{date}.csv", "csv")
    found.csv(f"{FIRST}.csv", 2, at(SECOND, 9))
    now_ms = ms(at(SECOND, 9)) + 59_999
    assert not found.look().has(FIRST, now_ms)
    assert "written to its end" in found.look().looked_for(FIRST, now_ms)
    assert found.look().has(FIRST, now_ms + 1)
    # A clock that is ahead does not keep it from being there.
    assert found.look().has(FIRST, ms(at(SECOND, 8)))


def test_a_day_changes_with_its_own_files_alone(drop: MakeDrop) -> None:
    found = drop("{date}/*.csv", "csv")
    one = found.csv(f"{FIRST}/a.csv", 2, at(SECOND))
    before = found.look().signature(FIRST)
    found.csv(f"{SECOND}/a.csv", 2, at(THIRD))
    assert found.look().signature(FIRST) == before
    one.chmod(0o600)
    assert found.look().signature(FIRST) == before
    signatures = {before}
    for change in (
        lambda: found.csv(f"{FIRST}/a.csv", 3, at(SECOND)),
        lambda: found.csv(f"{FIRST}/a.csv", 3, at(THIRD)),
        lambda: found.csv(f"{FIRST}/b.csv", 1, at(THIRD)),
        one.unlink,
    ):
        change()
        signatures.add(found.look().signature(FIRST))
    assert len(signatures) == 5
    (found.folder / "raw" / f"{FIRST}/b.csv").unlink()
    assert found.look().signature(FIRST) == ""


def test_the_same_files_under_another_root_are_the_same(drop: MakeDrop, tmp_path: Path) -> None:
    found = drop("{date}/*.csv", "csv")
    found.csv(f"{FIRST}/a.csv", 2, at(SECOND))
    before = found.look().signature(FIRST)
    (tmp_path / "elsewhere").mkdir()
    moved = Drop(tmp_path / "elsewhere", "{date}/*.csv", "csv")
    moved.csv(f"{FIRST}/a.csv", 2, at(SECOND))
    assert moved.look().signature(FIRST) == before


# Statistics.


def test_statistics_tell_the_days_of_a_file(drop: MakeDrop) -> None:
    found = drop("", "parquet")
    found.parquet("a.parquet", SECOND, THIRD, at(THIRD, 8))
    look = found.look()
    assert [look.has(day, MORNING) for day in (FIRST, SECOND, THIRD)] == [False, True, True]
    assert look.looked_for(FIRST, MORNING).endswith(
        "no file holds it by its statistics, they end with 2031-03-03"
    )
    before = look.signature(SECOND)
    # Events of the day before that came with a later file change what it holds.
    found.parquet("b.parquet", THIRD, THIRD, at(THIRD, 8))
    assert found.look().signature(SECOND) == before
    found.parquet("c.parquet", SECOND, THIRD, at(THIRD, 8))
    assert found.look().signature(SECOND) != before


def test_a_file_of_many_days_holds_a_day_once_it_was_written_after_it(drop: MakeDrop) -> None:
    found = drop("all.parquet", "parquet")
    path = found.parquet("all.parquet", FIRST - timedelta(days=60), SECOND, at(SECOND, 18))
    assert [found.look().has(day, MORNING) for day in (FIRST, SECOND)] == [True, False]
    stamped(path, at(THIRD, 8))
    assert found.look().has(SECOND, MORNING)
    # Which of its days have changed it does not tell, so none has.
    assert found.look().signature(FIRST) == ""


def test_a_file_is_opened_once_as_long_as_it_does_not_change(
    drop: MakeDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = drop("", "parquet")
    for day in (FIRST, SECOND):
        found.parquet(f"{day}.parquet", day, day, at(THIRD, 8))
    opened: list[str] = []

    def counted(path: str, event_time: str) -> Footer:
        opened.append(path)
        return read_footer(path, event_time)

    monkeypatch.setattr("offline.raw.files.read_footer", counted)
    known: Looks = {}
    for _ in range(3):
        assert found.look(known).has(SECOND, MORNING)
    assert len(opened) == 2
    found.parquet(f"{SECOND}.parquet", SECOND, SECOND, at(THIRD, 9))
    found.look(known)
    assert len(opened) == 3


# Files that do not tell.


def test_text_without_a_day_in_its_name_holds_a_day_once_it_came_after_it(drop: MakeDrop) -> None:
    found = drop("", "csv")
    path = found.csv("payments.csv", 2, at(SECOND, 23))
    look = found.look()
    assert [look.has(day, MORNING) for day in (FIRST, SECOND)] == [True, False]
    assert look.looked_for(SECOND, MORNING).endswith("the last was at 2031-03-02T23:00Z")
    assert not look.is_known_absent(SECOND)
    stamped(path, at(THIRD))
    assert found.look().has(SECOND, MORNING)
    assert found.look().signature(FIRST) == ""


def test_what_is_written_to_all_day_long_is_not_waited_for_for_ever(drop: MakeDrop) -> None:
    found = drop("", "csv")
    found.csv("payments.csv", 2, at(THIRD, 1, 30))
    # It is complete at 01:30, by the lateness that is allowed.
    assert not found.look().has(SECOND, ms(at(THIRD, 1, 30)))
    found.csv("payments.csv", 2, at(THIRD, 1, 40))
    assert found.look().has(SECOND, ms(at(THIRD, 1, 40)))


def test_of_nothing_at_all_the_fault_is_told(drop: MakeDrop) -> None:
    found = drop("{date}.csv", "csv")
    assert "matches no csv file" in found.look().looked_for(FIRST, MORNING)
    assert not found.look().has(FIRST, MORNING)
    assert not found.look().is_known_absent(FIRST)


def test_what_lies_behind_a_url_is_taken_to_be_there(drop: MakeDrop) -> None:
    found = drop("x", "csv")
    text = (found.folder / "payments.yaml").read_text(encoding="utf-8")
    other = found.folder / "url.yaml"
    other.write_text(text.replace(f"{found.folder}/raw/x", "s3a://bucket/x"), encoding="utf-8")
    look = Arrivals.look(plan_of([other]).sources["payments"], settings_from_env({}))
    assert look.has(FIRST, MORNING)
    assert look.signature(FIRST) == ""


# Delta.


def test_the_log_of_a_delta_table_tells_its_days_and_that_they_changed(drop: MakeDrop) -> None:
    found = drop("table", "delta")
    place = str(found.folder / "raw" / "table")

    def append(*instants: datetime) -> None:
        write_deltalake(place, events(*instants), mode="append")

    append(at(FIRST, 5))
    look = found.look()
    assert [look.has(day, MORNING) for day in (FIRST, SECOND)] == [True, False]
    before = look.signature(FIRST)
    append(at(SECOND, 5))
    assert found.look().has(SECOND, MORNING)
    assert found.look().signature(FIRST) == before
    append(at(FIRST, 7))
    changed = found.look().signature(FIRST)
    assert changed != before
    # The same rows in fewer files are the same rows.
    DeltaTable(place).delete("paid_at >= '2031-03-02T00:00:00Z'")
    DeltaTable(place).optimize.compact()
    assert found.look().signature(FIRST) == changed
