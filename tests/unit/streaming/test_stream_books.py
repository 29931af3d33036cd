"""The books in the transaction log: kept by checkpoints, guarded against two writers."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable

from checks.reconciliation import examine, reconciliation_checks
from millrace.plan import Plan
from offline.tables.archived_days import archived_rows
from resources.lake.offset_ledger import OffsetLedger, read_ledger
from resources.settings import Settings, settings_from_env
from streaming.archive.arrivals import Arrivals
from streaming.archive.batch import Batch, BatchClassifier, dead_letter_columns, event_columns
from streaming.archive.intake import Record
from streaming.archive.source import _starting_ledger
from streaming.archive.status import archive_status
from streaming.archive.tables import OvertakenError, SourceTables, days_of
from tests.support.archive_cases import BASE_MS, payments

SOURCE = payments("pay")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(
        settings_from_env({"MILLRACE_HOME": str(tmp_path), "MILLRACE_CACHE": str(tmp_path)}),
        lake=str(tmp_path / "lake"),
    )


def judged(*values: bytes, offset: int = 0) -> Batch:
    batch = Batch()
    records = [Record(BASE_MS, 0, offset + n, value) for n, value in enumerate(values)]
    BatchClassifier(SOURCE, Arrivals(1000), {}).add(records, batch)
    return batch


def event(number: int) -> bytes:
    return f'{{"id":"{number}","at":{BASE_MS}}}'.encode()


def commit(
    settings: Settings, before: OffsetLedger | None, after: OffsetLedger, batch: Batch
) -> None:
    tables = SourceTables.of(settings, SOURCE)
    old = {} if before is None else before.entries()
    markers = {f"millrace-archive/pay/{p}": o for p, o in after.next.items()}
    stale = {name: old[name] for name in markers if name in old}
    if batch.dead_letters:
        tables.dead_letters.append(dead_letter_columns("pay", batch.dead_letters), stale, markers)
    tables.events.append(event_columns(SOURCE, batch.events), old, after.entries())


def books(events: int, malformed: int = 0) -> OffsetLedger:
    empty = OffsetLedger("pay", first={0: 0, 1: 0}, next={0: 0, 1: 0}, dlq={0: 0})
    counted = empty.plus({"events": events, "malformed": malformed})
    return replace(counted, next={0: events + malformed, 1: 0}, newest_ms=BASE_MS)


def opened(settings: Settings) -> DeltaTable:
    return DeltaTable(f"{settings.lake}/events/pay")


def test_books_come_back_as_they_were_written_also_out_of_a_checkpoint(settings: Settings) -> None:
    first, second = books(2), books(4)
    commit(settings, None, first, judged(event(1), event(2)))
    commit(settings, first, second, judged(event(3), event(4), offset=2))
    assert read_ledger(opened(settings), "pay") == second
    opened(settings).create_checkpoint()
    for log in Path(settings.lake, "events/pay/_delta_log").glob("*.json"):
        log.unlink()
    assert read_ledger(opened(settings), "pay") == second
    assert read_ledger(opened(settings), "other") == OffsetLedger("other")


def test_the_table_is_one_that_any_delta_reader_reads(settings: Settings) -> None:
    commit(settings, None, books(1), judged(event(1)))
    protocol = opened(settings).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    names = [field.name for field in opened(settings).schema().fields]
    system = ["_event_ms", "_ingest_ms", "_partition", "_offset", "event_date"]
    assert names == ["id", "at", "who", "amount", *system]


def test_a_commit_without_rows_moves_the_books(settings: Settings) -> None:
    commit(settings, None, books(0, malformed=2), judged(b"x", b"y"))
    assert opened(settings).count() == 0
    assert read_ledger(opened(settings), "pay").counts["malformed"] == 2


def test_a_writer_with_old_books_is_refused(settings: Settings) -> None:
    first = books(1)
    commit(settings, None, first, judged(event(1)))
    commit(settings, first, books(2), judged(event(2), offset=1))
    with pytest.raises(OvertakenError, match="another archive writes to this table"):
        commit(settings, first, books(2), judged(event(2), offset=1))
    with pytest.raises(OvertakenError):
        commit(settings, None, books(1), judged(event(1)))
    assert opened(settings).count() == 2


def test_a_new_column_is_added_and_rows_of_before_have_none(settings: Settings) -> None:
    narrow = replace(SOURCE, columns=SOURCE.columns[:3])
    batch = judged(event(1))
    first = books(1)
    columns = event_columns(narrow, batch.events)
    SourceTables.of(settings, narrow).events.append(columns, {}, first.entries())
    commit(settings, first, books(2), judged(event(2), offset=1))
    rows = opened(settings).to_pyarrow_table().sort_by("_offset").to_pylist()
    assert [(r["id"], r["amount"], r["_offset"]) for r in rows] == [("1", None, 0), ("2", None, 1)]
    assert archived_rows(settings, "pay") == {date(2025, 10, 9): 2}


def test_days_that_no_calendar_has_are_null() -> None:
    assert days_of([0, None, 2**62, -1]).to_pylist() == [
        date(1970, 1, 1),
        None,
        None,
        date(1969, 12, 31),
    ]


def test_the_check_holds_books_offsets_and_rows_against_each_other(settings: Settings) -> None:
    assert examine(settings, SOURCE).passed  # nothing was read yet
    first = books(2, malformed=1)
    commit(settings, None, first, judged(event(1), event(2), b"{"))
    passed = examine(settings, SOURCE)
    assert passed.passed
    assert passed.description == "3 in = 2 events + 0 duplicates + 1 dead letters"
    assert passed.metadata["offsets_read"].value == 3

    wrong = replace(books(4, malformed=1), next={0: 6, 1: 0})
    commit(settings, first, wrong, judged(event(3), offset=3))
    failed = examine(settings, SOURCE)
    assert not failed.passed
    assert "6 offsets read, 5 accounted for" in str(failed.description)
    assert "the books count 4 events, the table holds 3" in str(failed.description)


def test_letters_of_a_batch_that_was_cut_off_are_not_counted(settings: Settings) -> None:
    commit(settings, None, books(1), judged(event(1)))
    dead_letters = dead_letter_columns("pay", judged(b"{", offset=1).dead_letters)
    SourceTables.of(settings, SOURCE).dead_letters.append(
        dead_letters, {}, {"millrace-archive/pay/0": 2}
    )
    assert examine(settings, SOURCE).passed


def test_there_is_a_check_for_each_source_with_a_stream() -> None:
    plan = Plan({"pay": SOURCE, "files": replace(SOURCE, name="files", stream=None)}, {}, {}, {})
    (check,) = reconciliation_checks(plan)
    assert [key.to_user_string() for key in check.check_keys] == [
        "dead_letters/pay_dead_letters:books"
    ]


def test_status_is_zeros_and_no_lag_before_anything_runs(settings: Settings) -> None:
    status = archive_status(settings, Plan({"pay": SOURCE}, {}, {}, {}))
    assert status == {
        "pay": {
            "events": 0,
            "duplicates": 0,
            "dead_letters": {"malformed": 0, "schema": 0, "late": 0, "future": 0},
            "lag_events": None,
        }
    }


def test_partitions_that_are_new_lost_or_made_again_leave_the_books_balanced() -> None:
    known = replace(books(10), first={0: 0, 1: 0}, next={0: 6, 1: 4})
    begins, ends = {0: 8, 1: 0, 2: 3}, {0: 9, 1: 2, 2: 5}
    started = _starting_ledger(known, begins, ends)
    assert started.next == {0: 8, 1: 0, 2: 3}
    assert started.counts["lost"] == 2
    assert started.span == started.accounted == 12
