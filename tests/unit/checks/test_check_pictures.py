"""Pictures of findings: small PNGs inside Markdown, the same for the same numbers."""

import base64
from datetime import date, timedelta

from checks.quality.judgement import JudgedDay, Judgement
from checks.quality.pictures import finding_pictures
from millrace.compile.checks import Rule
from millrace.quality.finding import Finding, Histogram, Verdict
from millrace.quality.profile import DayProfile

FIRST = date(2024, 3, 4)
LARGEST_BYTES = 60_000


def finding(value: float, column: str = "amount", *, failed: bool = False) -> Finding:
    rule = Rule(f"drift__{column}", "drift", column, {"max": 0.2}, "warn")
    bins = Histogram(
        ("≤ 3", "3 to 7", "> 7", "null"), (30.0, 40.0, 25.0, 5.0), (1.0, 2.0, 3.0, 90.0)
    )
    verdict: Verdict = "failed" if failed else "passed"
    return Finding(rule, verdict, value, None, 0.2, 100, "at most 0.2", str(value), "", 28, bins)


def judgement(*findings: tuple[Finding, ...]) -> Judgement:
    days = tuple(
        JudgedDay(DayProfile("events/orders", FIRST + timedelta(days=i), 100), found)
        for i, found in enumerate(findings)
    )
    earlier = {"drift__amount": tuple((FIRST - timedelta(days=9 - i), 0.01 * i) for i in range(9))}
    return Judgement("events/orders", days, earlier=earlier)


def png(markdown: str) -> bytes:
    head, _, data = markdown.removesuffix(")").partition("(data:image/png;base64,")
    assert head.startswith("![")
    return base64.b64decode(data)


def test_a_failed_finding_is_drawn_against_its_baseline_and_over_time() -> None:
    found = judgement((finding(0.1),), (finding(0.5, failed=True),))
    pictures = finding_pictures(found, found.days[1], found.days[1].findings)
    assert set(pictures) == {"histogram", "over_time"}
    assert "amount on 2024-03-05 and in 28 days before" in pictures["histogram"]
    for markdown in pictures.values():
        assert png(markdown).startswith(b"\x89PNG")
        assert len(markdown) < LARGEST_BYTES


def test_the_worst_column_is_the_one_that_is_drawn() -> None:
    found = judgement((finding(0.19, "weight"), finding(0.21, "amount", failed=True)))
    pictures = finding_pictures(found, found.days[0], found.days[0].findings)
    assert "amount on" in pictures["histogram"]
    assert "drift of amount" in pictures["over_time"]


def test_the_same_numbers_give_the_same_bytes() -> None:
    found = judgement((finding(0.1),))
    first, second = (finding_pictures(found, found.days[0], found.days[0].findings) for _ in "ab")
    assert first == second


def test_one_day_without_history_has_nothing_over_time() -> None:
    alone = Judgement("events/orders", judgement((finding(0.1),)).days)
    assert set(finding_pictures(alone, alone.days[0], alone.days[0].findings)) == {"histogram"}
