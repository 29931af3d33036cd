"""The demo's second opinion is complete, and it does see a difference."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot

from checks.parity.history_served import ServedHistory
from checks.parity.report import InFlightShare, ParityReport
from cli.demo.live import DeadLetter, LiveProof
from cli.demo.recompute import Comparison, ViewProof, differing_values, is_equal, sample_of
from cli.demo.recompute import _compare as compare
from cli.demo.report import Counts, TrainingProof, show_backfill, show_counts, show_proven
from cli.demo.sets import AWKWARD_ROWS, EXAMPLES, REGULAR, DemoSet, demo_sets, write_spine
from millrace.days import Days
from resources.declarations import plan_of
from resources.settings import CHECKOUT, settings_from_env

RECOMPUTED = sorted((EXAMPLES / "recompute").glob("*.sql"))
PLAN = plan_of([CHECKOUT / "feature_assets" / "views", EXAMPLES])


def test_every_view_of_the_repository_has_a_recomputation() -> None:
    assert {path.stem for path in RECOMPUTED} == set(PLAN.views)


@pytest.mark.parametrize("path", RECOMPUTED, ids=[path.stem for path in RECOMPUTED])
def test_a_recomputation_names_exactly_the_features_of_its_view(path: Path) -> None:
    query = sqlglot.parse_one(path.read_text(encoding="utf-8"), dialect="spark")
    assert isinstance(query, sqlglot.exp.Select)
    assert query.named_selects == ["row", *(f.name for f in PLAN.view(path.stem).features)]


@pytest.mark.parametrize("path", RECOMPUTED, ids=[path.stem for path in RECOMPUTED])
def test_a_recomputation_reads_the_raw_file_and_the_questions_only(path: Path) -> None:
    query = sqlglot.parse_one(path.read_text(encoding="utf-8"), dialect="spark")
    named = {cte.alias for cte in query.find_all(sqlglot.exp.CTE)}
    read = {table.name for table in query.find_all(sqlglot.exp.Table)} - named
    assert read == {"asked", PLAN.view(path.stem).source.name}


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        (1.0, 1.0 + 1e-12, True),
        (1.0, 1.0 + 1e-8, False),
        (Decimal("1.10"), Decimal("1.1"), True),
        (Decimal("1.10"), Decimal("1.11"), False),
        (0, None, False),
        (None, None, True),
        ("EWR", "JFK", False),
    ],
)
def test_values_are_compared_as_the_contract_allows(
    ours: object, theirs: object, *, equal: bool
) -> None:
    assert is_equal(ours, theirs) is equal


def test_a_difference_is_counted_and_named() -> None:
    rows: list[dict[str, Any]] = [{"row": 3, "a": 1, "b": 2.0}, {"row": 4, "a": 1, "b": None}]
    truth: dict[int, dict[str, Any]] = {3: {"a": 1, "b": 2.0}, 4: {"a": 2, "b": None}}
    found = compare("view", ["a", "b"], rows, truth)
    assert (found.rows, found.values, found.mismatches) == (2, 4, 1)
    assert found.shown == ("view.a, row 4: 1, recomputed 2",)


def test_tables_of_two_engines_are_compared_value_by_value() -> None:
    left = pa.table({"a": [1, 2, None], "b": [0.5, None, 1.0]})
    right = pa.table({"a": [1, 3, None], "b": [0.5, 0.0, 1.0]})
    assert differing_values(left, right, ["a", "b"]) == 2


def a_set(folder: Path, rows: int) -> DemoSet:
    path = folder / "raw.parquet"
    start_ms = 1_522_540_800_000
    pq.write_table(
        pa.table(
            {
                "at": pa.array([start_ms + i * 60_000 for i in range(rows)], pa.timestamp("ms")),
                "customer_id": pa.array(range(rows), pa.int32()),
                "is_fraud": [0] * rows,
            }
        ),
        path,
    )
    return DemoSet(
        "payments", "", (), Days(date(2018, 4, 1), date(2018, 4, 2)), path, "at",
        ("customer_id",), "", "{}", {"customer_id": 10**9}, "is_fraud", {},
    )  # fmt: skip


def test_a_spine_is_the_same_every_time_and_holds_the_awkward_rows(tmp_path: Path) -> None:
    demo_set = a_set(tmp_path, 3000)
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    rows = write_spine(demo_set, first)
    assert write_spine(demo_set, second) == rows
    spine = pq.read_table(first)
    assert spine.equals(pq.read_table(second))
    # The file holds more than a day: what lies outside the range is not asked about.
    kinds = spine["kind"].to_pylist()
    assert kinds.count(REGULAR) == 1440
    assert {kinds.count(kind) for kind in set(kinds) - {REGULAR}} == {AWKWARD_ROWS}
    assert spine["customer_id"].null_count == AWKWARD_ROWS
    assert set(sample_of(spine)["kind"].to_pylist()) == set(kinds)


def test_the_fast_demo_is_sixty_days_of_flights() -> None:
    settings = settings_from_env({"MILLRACE_HOME": "/nowhere", "MILLRACE_DATA": "/nowhere"})
    (only,) = demo_sets(settings, fast=True)
    assert (only.source, len(only.days)) == ("flights", 60)
    (usual,), (whole,) = demo_sets(settings), demo_sets(settings, every_day=True)
    assert (usual.source, len(usual.days), len(whole.days)) == ("flights", 92, 366)
    assert usual.days.start == whole.days.start


HOLDS = (
    TrainingProof("s", Path("t"), 10, 2, keeps_spine=True, engines_differ_in=0, seconds={}),
    ViewProof("v", 2, Comparison(5, 10), Comparison(4, 8)),
    Counts("s", 10, 7, 1, {"late": 2}, {}, {}),
)
EQUAL = ParityReport(
    PLAN.view("terminal_risk"), "v1", 0, {}, {}, 70, 0, (), InFlightShare(5000), (0, 0), 0.0, 0.0,
    history=ServedHistory(PLAN.view("terminal_risk")),
)  # fmt: skip
LETTER = DeadLetter("t.dlq", "0:1", "malformed", is_intact=True)
LIVE = LiveProof("s", {"terminal_risk": "v1"}, 100, [5, 9], 0, LETTER, [EQUAL], {})


def test_rows_without_a_time_are_shown_beside_the_rows_of_the_days(
    capsys: pytest.CaptureFixture[str],
) -> None:
    books = Counts("flights", 10, 7, 1, {"schema": 4}, {}, {}, undated=2)
    assert books.is_balanced
    show_counts([books])
    show_backfill([], {"flights": 2})
    shown = capsys.readouterr().out
    assert "10 rows of these days in + 2 without a time, of every day = 7 accepted" in shown
    assert "dead letters of flights beside those of its days: 2 rows without a time" in shown


def test_the_demo_holds_only_if_every_claim_does() -> None:
    training, proof, books = HOLDS
    assert show_proven([], [training], [proof], [books], LIVE)
    assert not show_proven([], [replace(training, keeps_spine=False)], [proof], [books], LIVE)
    assert not show_proven([], [replace(training, engines_differ_in=1)], [proof], [books], LIVE)
    wrong = replace(proof, history=Comparison(4, 8, 1))
    assert not show_proven([], [training], [wrong], [books], LIVE)
    compared_nothing = replace(proof, history=Comparison(0, 0))
    assert not show_proven([], [training], [compared_nothing], [books], LIVE)
    assert not show_proven([], [training], [proof], [replace(books, accepted=8)], LIVE)


@pytest.mark.parametrize(
    "live",
    [
        replace(LIVE, unanswered=1),
        replace(LIVE, latencies_ms=[]),
        replace(LIVE, parity=[]),
        replace(LIVE, parity=[EQUAL, replace(EQUAL, differing=1)]),
        replace(LIVE, parity=[replace(EQUAL, values=0)]),
        replace(LIVE, dead_letter=replace(LETTER, is_intact=False)),
    ],
)
def test_the_demo_fails_if_a_claim_about_the_streams_does(live: LiveProof) -> None:
    training, proof, books = HOLDS
    assert not show_proven([], [training], [proof], [books], live)
