"""A preview: the values of ``features/<view>``, out of raw files in this process, by the oracle."""

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from cli.main import main
from millrace.errors import DataError, NotDeclared, PlatformError
from millrace.expressions import evaluate
from millrace.plan import ViewPlan
from offline.preview import Preview, preview_view
from resources.declarations import load_plan
from resources.settings import settings_from_env
from tests import reference
from tests.support.oracle import oracle_derived, oracle_feature

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START_MS = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp() * 1000)
VIEWS = """
version: millrace/v1
sources:
  - name: cards
    columns: {id: int64, ts: timestamp, seen: timestamp, who: int64, amount: int64}
    event_time: ts
    event_id: id
    ingest_time: seen
    batch: {format: FORMAT, path: "PATH"}
  - name: live
    columns: {ts: timestamp, who: int64}
    event_time: ts
    stream: {topic: live, format: json}
entities:
  - {name: customer, join_key: who, type: int64}
feature_views:
  - name: spend
    entity: customer
    source: cards
    start: 2024-03-02
    filter: "amount > 0"
    features:
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: double_7d, aggregate: sum, expr: "amount * 2", window: 7d, default: 0}
      - {name: newest, aggregate: last_k, k: 3, column: amount, window: lifetime}
      - {name: run, aggregate: count, window: {session: 30m, max: 1d}}
      - {name: today, aggregate: max, column: amount, window: {tumbling: 1d, timezone: Europe/Berlin}}
      - {name: share, derive: "double_7d / NULLIF(n_1h, 0)"}
  - name: short
    entity: customer
    source: cards
    start: 2024-03-01
    features: [{name: n, aggregate: count, window: 1h}]
  - name: now
    entity: customer
    source: live
    start: 2024-03-01
    features: [{name: n, aggregate: count, window: 1h}]
"""
FORMATS = ("csv", "json", "parquet", "delta")
Row = dict[str, Any]
Declare = Callable[[str, str], None]


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Return a function that declares the views over files of a format at a path."""
    folder = tmp_path / "views"
    folder.mkdir()
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MILLRACE_VIEWS", str(folder))
    monkeypatch.delenv("MILLRACE_LAKE", raising=False)

    def write(file_format: str, path: str) -> None:
        text = VIEWS.replace("FORMAT", file_format).replace("PATH", path)
        (folder / "v.yaml").write_text(text, encoding="utf-8")

    return write


def generated() -> list[Row]:
    """Return rows with ties, duplicates, late and early ones, nulls in keys, ids and times."""
    dice = random.Random(7)
    rows: list[Row] = []
    for i in range(160):
        ts = START_MS + dice.randrange(5 * 24 * 12) * HOUR_MS // 12
        delay = dice.choice([0, 1, 1000, HOUR_MS, HOUR_MS + 1, -5_000, -5_001])
        row = {"id": i, "ts": ts, "seen": ts + delay, "who": dice.choice([1, 2, 2, None])}
        rows.append(row | {"amount": dice.choice([-1, 0, 1, 2, 5, None])})
    again = [dict(row, seen=row["seen"] + 500) for row in rows[::9]]
    nameless = [dict(row, id=None) for row in rows[::17]]
    timeless = [dict(row, ts=None, id=1000 + i) for i, row in enumerate(rows[:3])]
    return [*rows, *again, *nameless, *timeless]


def write(rows: list[Row], file_format: str, folder: Path) -> Path:
    """Write rows into files of a format; two where there are files."""
    if file_format == "delta":
        write_deltalake(str(folder / "table"), arrow(rows))
        return folder / "table"
    place = folder / "raw"
    place.mkdir()
    half = len(rows) // 2
    for i, part in enumerate((rows[:half], rows[half:])):
        path = place / f"{i}.{file_format}"
        if file_format == "parquet":
            pq.write_table(arrow(part), path)
        elif file_format == "json":
            path.write_text("\n".join(json.dumps(row) for row in part), encoding="utf-8")
        else:
            cells = [["" if v is None else str(v) for v in row.values()] for row in part]
            lines = [",".join(line) for line in [list(part[0]), *cells]]
            path.write_text("\n".join(lines), encoding="utf-8")
    return place


def arrow(rows: list[Row]) -> pa.Table:
    instant = pa.timestamp("us", "UTC")
    columns = {n: [row[n] for row in rows] for n in rows[0]}
    times = {
        n: pa.array([None if v is None else v * 1000 for v in columns[n]], instant)
        for n in ("ts", "seen")
    }
    return pa.table({n: times.get(n, pa.array(v, pa.int64())) for n, v in columns.items()})


def expected(view: ViewPlan, rows: list[Row]) -> tuple[list[Row], Counter[str]]:
    """Return by the oracle the values as of each event, newest first, and the verdicts."""
    events = [
        reference.Event(
            row["who"],
            row["ts"],
            row["seen"],
            value=row,
            event_id=row["id"],
            fits=isinstance(row["amount"], int | None),
        )
        for row in rows
    ]
    source = view.source
    judged = reference.judge(
        events,
        allowed_lateness_ms=source.allowed_lateness_ms,
        clock_skew_ms=source.clock_skew_ms,
        dedup_horizon_ms=source.dedup_horizon_ms,
    )
    counted: list[Any] = [
        event
        for event in cast("list[Any]", reference.accepted(judged))
        if event.key is not None
        and event.event_ms >= view.start_ms
        and (view.filter is None or evaluate(view.filter, event.value) is True)
    ]
    found: list[Row] = []
    for event in counted:
        q_ms: int = event.event_ms
        row: Row = {}
        for feature in view.features:
            measure = feature.measure
            seen = [
                replace(e, value=1 if measure is None else evaluate(measure.expression, e.value))
                for e in counted
            ]
            asked = oracle_feature(feature)
            row[feature.name] = reference.value(
                seen, asked, event.key, q_ms, start_ms=view.start_ms
            )
        derived = {d.name: oracle_derived(d) for d in view.derived}
        values = reference.derive(row, derived, q_ms)
        found.append({"who": event.key, "event_ms": q_ms, **values})
    found.sort(key=lambda row: (-row["event_ms"], row["who"]))
    return found, Counter(verdict for verdict, _ in judged)


def shown(found: Preview) -> list[Row]:
    """Return the rows of a preview in the form of the expected ones."""
    rows = found.table.to_pylist()
    return [
        {"who": r.pop("who"), "event_ms": round(r.pop("event_time").timestamp() * 1000), **r}
        for r in rows
    ]


def preview_of(view: str, **options: Any) -> Preview:
    settings = settings_from_env()
    return preview_view(settings, load_plan(settings).view(view), **options)


@pytest.mark.parametrize("file_format", FORMATS)
def test_values_and_verdicts_are_the_oracles(
    file_format: str, declare: Declare, tmp_path: Path
) -> None:
    rows = generated()
    if file_format in {"csv", "json"}:
        rows.append(rows[5] | {"id": 2000, "amount": "x"})
    declare(file_format, str(write(rows, file_format, tmp_path)))
    view = load_plan(settings_from_env()).view("spend")
    want, verdicts = expected(view, rows)
    found = preview_of("spend", limit=1000)
    assert len(want) > 20
    assert shown(found) == want
    assert found.verdicts.rows == len(rows)
    assert found.verdicts.duplicates == verdicts.pop("duplicate") > 0
    assert verdicts.pop("accepted") > 0
    assert found.verdicts.dead_letters == verdicts
    assert set(verdicts) == {"late", "future", "schema"}
    assert shown(preview_of("spend", limit=4)) == want[:4]
    one = [row for row in want if row["who"] == 1]
    assert shown(preview_of("spend", limit=5, key={"who": 1})) == one[:5]
    near = [row for row in one if row["event_ms"] >= one[0]["event_ms"] - DAY_MS]
    assert shown(preview_of("spend", limit=99, key={"who": 1}, since="1d")) == near
    day_ms = START_MS + 3 * DAY_MS
    late = [row for row in want if row["event_ms"] >= day_ms]
    assert shown(preview_of("spend", limit=99, since="2024-03-04")) == late
    assert not (tmp_path / "home").exists()


def days_of_files(folder: Path) -> list[Row]:
    """Write a Parquet file for each of 20 days, with an event of entity 1 each, 9 of the first."""
    folder.mkdir()
    rows = [
        {
            "id": d,
            "ts": START_MS + d * DAY_MS,
            "seen": START_MS + d * DAY_MS,
            "who": 9 if d == 0 else 1,
        }
        | {"amount": d}
        for d in range(20)
    ]
    for d, row in enumerate(rows):
        pq.write_table(arrow([row]), folder / f"{d:02}.parquet")
    return rows


def test_only_the_days_that_the_windows_need_are_read(declare: Declare, tmp_path: Path) -> None:
    rows = days_of_files(tmp_path / "raw")
    declare("parquet", str(tmp_path / "raw"))
    found = preview_of("short", limit=1)
    assert found.files < 6
    want, _ = expected(load_plan(settings_from_env()).view("short"), rows)
    assert shown(found) == want[:1]
    nothing = preview_of("short", since="2024-05-01")
    assert (nothing.table.num_rows, nothing.files) == (0, 0)
    assert nothing.table.column_names == ["who", "event_time", "n"]
    # Where the entity is idle, ever earlier days are read until it is found.
    idle = preview_of("short", limit=1, key={"who": 9})
    assert (shown(idle), idle.files) == (want[-1:], 20)
    with pytest.raises(DataError, match="needs more than 8 raw rows") as refused:
        preview_of("short", key={"who": 9}, max_rows=8)
    assert "--since" in refused.value.fix


def test_a_broken_file_is_told_and_the_others_are_read(declare: Declare, tmp_path: Path) -> None:
    days_of_files(tmp_path / "raw")
    (tmp_path / "raw" / "05.parquet").write_bytes(b"no parquet")
    declare("parquet", str(tmp_path / "raw"))
    found = preview_of("short", limit=100)
    assert (found.table.num_rows, [Path(p).name for p in found.unreadable]) == (19, ["05.parquet"])


def test_what_cannot_be_previewed_is_refused_with_the_mend(
    declare: Declare, tmp_path: Path
) -> None:
    declare("csv", str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match="a stream without files") as of_stream:
        preview_of("now")
    assert "millrace stream deploy now" in of_stream.value.fix
    with pytest.raises(DataError, match=r"nowhere.csv does not exist"):
        preview_of("spend")
    with pytest.raises(PlatformError, match="neither a day nor a duration"):
        preview_of("spend", since="yesterday")
    with pytest.raises(NotDeclared) as unknown:
        preview_of("spent")
    assert "spend" in unknown.value.fix


def test_the_command_says_it_as_json(
    declare: Declare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = generated()
    declare("csv", str(write(rows, "csv", tmp_path)))

    def call(*arguments: str) -> tuple[object, Any]:
        monkeypatch.setattr(sys, "argv", ["millrace", "preview", *arguments, "--json"])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, json.loads(capsys.readouterr().out)

    code, told = call("spend", "--entity", "who=2", "--limit", "2")
    view = load_plan(settings_from_env()).view("spend")
    want = [row for row in expected(view, rows)[0] if row["who"] == 2][:2]
    assert (code, [row["n_1h"] for row in told["rows"]]) == (0, [row["n_1h"] for row in want])
    assert [row["newest"] for row in told["rows"]] == [row["newest"] for row in want]
    assert told["rows"][0]["event_time"].endswith("Z")
    assert told["read"]["rows"] == len(rows)
    code, told = call("spend", "--entity", "who")
    assert (code, told["error"]["where"]) == (1, "--entity")
    assert "int64" in told["error"]["what"]
