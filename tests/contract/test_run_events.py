"""The kept event log does what Dagster's own does, for one process and for several."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from jobs.instance.event_log_storage import KeptSqliteEventLog
from resources.settings import CHECKOUT

DEADLINE_S = 30


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as instance:
        yield instance


def entry(run: str, message: str) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=20, user_message=message, run_id=run, timestamp=time.time()
    )


def messages(storage: SqliteEventLogStorage, run: str) -> list[str]:
    return [e.user_message for e in storage.get_logs_for_run(run)]


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_the_local_instance_uses_it(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.event_log_storage, KeptSqliteEventLog)


def test_dagster_reads_what_it_wrote(home: Path) -> None:
    ours = KeptSqliteEventLog(str(home))
    ours.store_event(entry("run-1", "hello"))
    theirs = SqliteEventLogStorage(str(home / "history" / "runs"))
    assert messages(theirs, "run-1") == ["hello"]
    theirs.store_event(entry("run-1", "again"))
    assert messages(ours, "run-1") == ["hello", "again"]


def test_a_run_with_assets_is_recorded_in_full(instance: dg.DagsterInstance) -> None:
    days = dg.DailyPartitionsDefinition("2020-01-01")

    @dg.asset(partitions_def=days, backfill_policy=dg.BackfillPolicy.single_run())
    def counted() -> None:
        pass

    ended = dg.materialize(
        [counted],
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": "2020-01-01",
            "dagster/asset_partition_range_end": "2020-01-20",
        },
    )
    assert ended.success
    assert len(instance.get_materialized_partitions(counted.key)) == 20
    instance.delete_run(ended.run_id)
    assert not instance.all_logs(ended.run_id)


def test_a_watcher_in_another_process_is_told_of_each_event(home: Path) -> None:
    watching, writing = KeptSqliteEventLog(str(home)), KeptSqliteEventLog(str(home))
    writing.store_event(entry("run-1", "first"))
    seen: list[str] = []
    watching.watch("run-1", None, lambda event, _cursor: seen.append(event.user_message))
    try:
        writing.store_event(entry("run-1", "second"))
        assert until(lambda: "second" in seen), seen
    finally:
        watching.dispose()
        writing.dispose()


def test_many_threads_and_runs_lose_nothing(home: Path) -> None:
    storage = KeptSqliteEventLog(str(home))

    def write(run: int) -> None:
        for number in range(5):
            storage.store_event(entry(f"run-{run}", str(number)))

    threads = [threading.Thread(target=write, args=(run,)) for run in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    for run in range(12):
        assert messages(storage, f"run-{run}") == [str(number) for number in range(5)]
    storage.wipe()
    assert messages(storage, "run-3") == []
