"""The reference and the kernel against the worked cases of the window contract."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import reference
from tests.support.kernel_cases import Query, kernel_values

CASES = json.loads((Path(__file__).parents[2] / "contract_cases.json").read_text())["cases"]


def judged(case: dict[str, Any]) -> list[tuple[str, reference.Event]]:
    """Judge the events in their order in the source; verdicts come back in the case's order."""
    rows = case["events"]
    places = sorted(range(len(rows)), key=lambda i: rows[i]["order"])
    events = [
        reference.Event(r["key"], r["event_ms"], r["ingest_ms"], r["value"], r["event_id"])
        for r in (rows[i] for i in places)
    ]
    verdicts = reference.judge(
        events,
        allowed_lateness_ms=case["allowed_lateness_ms"],
        clock_skew_ms=case["clock_skew_ms"],
        dedup_horizon_ms=reference.DAY_MS if case["deduplicate"] else None,
    )
    return [verdict for _, verdict in sorted(zip(places, verdicts, strict=True))]


def features_of(case: dict[str, Any]) -> list[reference.Feature]:
    return [
        reference.Feature(f["aggregate"], f["window_ms"], f["hop_ms"], f["offset_ms"])
        for f in case["features"]
    ]


def agree(got: object, wanted: object) -> bool:
    if isinstance(wanted, float) and isinstance(got, int | float):
        return got == pytest.approx(wanted, rel=1e-9)
    return got == wanted and (got is None) == (wanted is None)


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_each_event_gets_the_verdict_of_the_case(case: dict[str, Any]) -> None:
    assert [v for v, _ in judged(case)] == [e["verdict"] for e in case["events"]]


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_the_reference_gives_the_answers_of_the_case(case: dict[str, Any]) -> None:
    events = reference.accepted(judged(case))
    for query in case["queries"]:
        for feature, wanted in zip(features_of(case), query["values"], strict=True):
            got = reference.value(
                events, feature, query["key"], query["q_ms"], hindsight=query["hindsight"]
            )
            assert agree(got, wanted), (query, feature, got)


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
@pytest.mark.parametrize("hindsight", [False, True])
def test_the_kernel_gives_the_answers_of_the_case(case: dict[str, Any], *, hindsight: bool) -> None:
    events = reference.accepted(judged(case))
    asked = [q for q in case["queries"] if q["hindsight"] is hindsight]
    queries = [Query(q["key"], q["q_ms"]) for q in asked]
    answers = kernel_values(events, features_of(case), queries, hindsight=hindsight)
    for query, values in zip(asked, answers, strict=True):
        pairs = zip(values, query["values"], strict=True)
        assert all(agree(got, wanted) for got, wanted in pairs), (query, values)
