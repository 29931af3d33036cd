"""Each rule passes what is usual, fails what is not, and says when it cannot tell."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millrace.compile.checks import Rule
from millrace.durations import DAY_MS, HOUR_MS
from millrace.plan import Column
from millrace.quality.finding import Finding
from millrace.quality.judge import HISTORY_DAYS, judge_day
from millrace.quality.partial import Partials, TableShape
from millrace.quality.profile import DayProfile
from millrace.types import BOOL, FLOAT64, INT64, STRING, TIMESTAMP

FIRST = date(2024, 1, 1)  # a Monday
DAYS = 35
TODAY = FIRST + timedelta(DAYS)
COLUMNS = {
    "id": INT64, "at": TIMESTAMP, "amount": FLOAT64, "channel": STRING, "code": STRING,
    "is_big": BOOL,
}  # fmt: skip
SHAPE = TableShape(
    "events/payments", tuple(Column(n, t) for n, t in COLUMNS.items()), "at", ("id",)
)
CHANNELS = ["web", "shop", "phone"]


def day_of(day: date, seed: int, rows: int = 960, **changed: Any) -> DayProfile:
    """Return a day with rows in every hour; ``changed`` columns take the place of the usual."""
    random = np.random.default_rng(seed)
    first_ms = (day - date(1970, 1, 1)).days * DAY_MS
    columns: dict[str, Any] = {
        "id": np.arange(rows) + seed * 100_000,
        "at": first_ms + np.arange(rows) * (DAY_MS // max(1, rows)),
        "amount": random.gamma(2.0, 20.0, rows),
        "channel": random.choice(CHANNELS, rows, p=[0.6, 0.3, 0.1]),
        "code": [f"c{i}" for i in random.integers(0, 400, rows)],
        "is_big": random.random(rows) < 0.1,
    }
    made = {n: changed[n](v) if n in changed else v for n, v in columns.items()}
    partials = Partials(SHAPE)
    if rows:
        partials.add(pa.table({**made, "at": pa.array(made["at"], pa.timestamp("ms", "UTC"))}))
    return next(d for d in partials.profiles([day]) if d.day == day)


HISTORY = tuple(day_of(FIRST + timedelta(n), n) for n in range(DAYS))
USUAL = day_of(TODAY, 99)


def judged(
    type_: str,
    column: str | None = None,
    day: DayProfile | None = None,
    *,
    history: tuple[DayProfile, ...] = HISTORY,
    severity: Any = "error",
    **arguments: Any,
) -> Finding:
    rule = Rule(type_, type_, column, arguments, severity)
    (finding,) = judge_day(day or USUAL, history, [rule])
    return finding


RULES: list[tuple[str, str | None, Mapping[str, Any]]] = [
    ("rows", None, {"min": 1}),
    ("volume", None, {}),
    ("completeness", None, {}),
    ("freshness", None, {}),
    ("uniqueness", None, {"max": 0.0}),
    ("uniqueness", None, {}),
    ("null_rate", "amount", {}),
    ("range", "amount", {}),
    ("range", "amount", {"min": 0}),
    ("cardinality", "code", {}),
    ("unseen", "channel", {}),
    ("unseen", "channel", {"values": CHANNELS}),
    ("frozen", "amount", {}),
    ("frozen", "channel", {}),
    ("drift", "amount", {}),
    ("drift", "amount", {"metric": "js"}),
    ("drift", "amount", {"metric": "mean"}),
    ("drift", "amount", {"metric": "variance"}),
    ("drift", "channel", {}),
    ("drift", "is_big", {"metric": "mean"}),
    ("drift", "at", {}),
]


@pytest.mark.parametrize(("type_", "column", "arguments"), RULES)
def test_a_usual_day_passes(type_: str, column: str | None, arguments: Mapping[str, Any]) -> None:
    finding = judged(type_, column, **arguments)
    assert (finding.verdict, finding.reason) == ("passed", "")
    assert finding.value is not None
    assert finding.n > 0


NEEDS_HISTORY = [r for r in RULES if not {"min", "max", "values"} & set(r[2])]


@pytest.mark.parametrize(("type_", "column", "arguments"), NEEDS_HISTORY)
def test_too_little_history_is_said_and_is_no_failure(
    type_: str, column: str | None, arguments: Mapping[str, Any]
) -> None:
    finding = judged(type_, column, history=HISTORY[-3:], **arguments)
    assert finding.verdict == "unknown"
    assert finding.reason.startswith("3 earlier days")
    assert not finding.is_alarm


@pytest.mark.parametrize(("type_", "column", "arguments"), RULES)
def test_a_day_without_rows_never_passes(
    type_: str, column: str | None, arguments: Mapping[str, Any]
) -> None:
    finding = judged(type_, column, day_of(TODAY, 1, rows=0), **arguments)
    assert finding.verdict == ("failed" if type_ in {"rows", "volume"} else "unknown")


def constant(value: Any) -> Any:
    return lambda values: np.full(len(values), value)


def half(value: Any) -> Any:
    return lambda values: np.where(np.arange(len(values)) % 2 == 0, value, values)


BROKEN: dict[str, tuple[str, str | None, Mapping[str, Any], Mapping[str, Any], str]] = {
    "too few rows": ("volume", None, {}, {"rows": 480}, "480 rows; expected 639 rows to 1,441 rows"),
    "nulls": ("null_rate", "amount", {}, {"amount": half(np.nan)}, "50.00% null"),
    "nulls above a limit": (
        "null_rate", "amount", {"max": 0.1}, {"amount": half(np.nan)}, "expected at most 10.00% null"),
    "outliers": (
        "range", "amount", {}, {"amount": lambda v: np.where(np.arange(len(v)) % 50, v, v * 1000)},
        "20 values outside; expected at most 3 values outside; usual:"),
    "below a limit": (
        "range", "amount", {"min": 0}, {"amount": lambda v: np.where(np.arange(len(v)), v, -1.0)},
        "1 values outside; expected at most 0 values outside; allowed: 0 to …; found -1 to"),
    "fewer different": (
        "cardinality", "code", {}, {"code": lambda v: [f"c{i % 50}" for i in range(len(v))]},
        "50 different values; expected"),
    "a new value": (
        "unseen", "channel", {}, {"channel": lambda v: np.where(np.arange(len(v)) % 20, v, "fax")},
        "5.00% of values are new; expected at most 1.00% of values are new; new: 'fax'"),
    "a value not given": (
        "unseen", "channel", {"values": ["web", "shop"]}, {}, "new: 'phone'"),
    "constant": ("frozen", "amount", {}, {"amount": constant(7.0)}, "100% of one value"),
    "constant flag": ("frozen", "is_big", {}, {"is_big": constant(value=False)}, "100% of one value"),
    "scale": ("drift", "amount", {}, {"amount": lambda v: v * 3}, "most moved:"),
    "scale by js": ("drift", "amount", {"metric": "js"}, {"amount": lambda v: v * 3}, "js 0."),
    "shift": ("drift", "amount", {"metric": "mean"}, {"amount": lambda v: v + 12}, "standard deviations from"),
    "spread": ("drift", "amount", {"metric": "variance"}, {"amount": lambda v: 40 + (v - 40) * 2.5}, "standard deviation"),
    "other categories": (
        "drift", "channel", {}, {"channel": lambda v: np.where(v == "web", "shop", "web")}, "psi 0."),
    "other hours": (
        "drift", "at", {}, {"at": lambda v: v - v % DAY_MS + (v % DAY_MS) // 2}, "by chance"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_usual_fails_and_says_why(case: str) -> None:
    type_, column, arguments, changed, said = BROKEN[case]
    finding = judged(type_, column, day_of(TODAY, 99, **changed), **arguments)
    assert finding.verdict == "failed"
    assert said in finding.reason
    assert finding.is_error
    assert not finding.is_blocking
    blocking = replace(finding.rule, is_blocking=True)
    assert replace(finding, rule=blocking).is_blocking
    assert not replace(finding, rule=replace(blocking, severity="warn")).is_blocking


def test_drift_far_beyond_its_limit_is_an_error_of_a_rule_that_warns() -> None:
    for factor, severity in ((1.5, "warn"), (100, "error")):
        day = day_of(TODAY, 99, amount=lambda v, by=factor: v * by)
        finding = judged("drift", "amount", day, severity="warn", error_times=10)
        assert (finding.verdict, finding.rule.severity) == ("failed", severity)


def without_hours(*hours: int) -> DayProfile:
    day = day_of(TODAY, 99)
    left = tuple(0 if h in hours else n for h, n in enumerate(day.hours))
    last = day.day.toordinal() - date(1970, 1, 1).toordinal()
    last_hour = max(h for h, n in enumerate(left) if n)
    return replace(
        day, rows=sum(left), hours=left, last_ms=last * DAY_MS + (last_hour + 1) * HOUR_MS - 1
    )


def test_a_missing_hour_is_named() -> None:
    finding = judged("completeness", day=without_hours(3, 4))
    assert finding.verdict == "failed"
    assert finding.value == 2
    assert "missing: 03:00, 04:00 UTC" in finding.reason


def test_a_day_that_ends_early_is_not_fresh() -> None:
    finding = judged("freshness", day=without_hours(21, 22, 23))
    assert finding.verdict == "failed"
    assert "3.00 h before midnight" in finding.actual
    assert judged("freshness", day=without_hours(21, 22, 23), max_age_ms=4 * HOUR_MS).value


def test_repeated_rows_and_a_repeated_day_are_found() -> None:
    twice = judged("uniqueness", day=replace(day_of(TODAY, 99), duplicates=480), max=0.0)
    assert twice.reason == "50.00% repeated; expected at most 0.00% repeated"
    again = judged("uniqueness", day=replace(HISTORY[-1], day=TODAY), max=0.0)
    assert again.reason == f"the day repeats {HISTORY[-1].day} row by row"


def test_what_the_build_counted_is_judged_and_unknown_if_it_did_not_count() -> None:
    assert judged("null_keys", max=0).verdict == "unknown"
    day = replace(day_of(TODAY, 99), counts={"null_keys": 3})
    assert judged("null_keys", day=day, max=0).reason == "3 events; expected at most 0 events"
    assert judged("null_keys", day=day, max=5).verdict == "passed"


def counting(*counts: int, rows: int = 960) -> tuple[DayProfile, ...]:
    """Return the latest days of the history with so many refused events each."""
    days = HISTORY[-len(counts) :] if counts else ()
    return tuple(
        replace(day, rows=rows, counts={"dead_letters": count})
        for day, count in zip(days, counts, strict=True)
    )


def refused(count: int, history: tuple[DayProfile, ...], **arguments: Any) -> Finding:
    day = replace(USUAL, counts={"dead_letters": count})
    return judged("dead_letters", day=day, history=history, **arguments)


@pytest.mark.parametrize(
    ("usual", "count", "verdict"),
    [
        ([0] * 28, 0, "passed"),
        ([0] * 28, 5, "passed"),  # five of a thousand may be chance
        ([0] * 28, 30, "failed"),
        ([240, 260, 230, 250] * 7, 245, "passed"),  # a fifth is what is usual here
        ([240, 260, 230, 250] * 7, 0, "passed"),  # fewer is no failure
        ([240, 260, 230, 250] * 7, 480, "failed"),
        ([2_000] * 28, 2_000, "passed"),  # two of three, every day
    ],
)
def test_a_share_of_events_is_refused_that_is_usual(
    usual: list[int], count: int, verdict: str
) -> None:
    finding = refused(count, counting(*usual))
    assert finding.verdict == verdict
    assert finding.value == count / (960 + count)
    assert (finding.n, finding.baseline_days) == (960 + count, 28)


def test_refused_events_are_told_as_share_and_number() -> None:
    assert refused(96, counting(*[0] * 28), tolerance=0.005).reason == (
        "9.09% of events; expected at most 0.50% of events; 96 of 1,056 events"
    )


def test_a_tolerance_and_spreads_may_be_declared_for_what_was_refused() -> None:
    usual = counting(*[90, 100, 110, 100] * 7)
    assert refused(200, usual, tolerance=0.0, spreads=3).verdict == "failed"
    assert refused(200, usual, tolerance=0.1).verdict == "passed"
    assert refused(200, usual, spreads=20).verdict == "passed"


@pytest.mark.parametrize("days", [0, 3])
def test_without_history_only_most_of_the_events_refused_are_too_many(days: int) -> None:
    history = counting(*[0] * days)
    few = refused(400, history)
    assert (few.verdict, few.value) == ("unknown", None)
    assert few.reason == f"{days} earlier days with rows, 7 are needed"
    most = refused(1_000, history)
    assert (most.verdict, most.high) == ("failed", 0.5)
    assert most.reason.startswith("51.02% of events; expected at most 50.00% of events")


def test_days_that_did_not_count_say_nothing_of_what_is_usual() -> None:
    assert refused(5, HISTORY).reason == "0 earlier days counted them, 7 are needed"


def test_a_day_whose_every_event_was_refused_fails() -> None:
    day = replace(day_of(TODAY, 1, rows=0), counts={"dead_letters": 50})
    assert judged("dead_letters", day=day, history=counting(*[0] * 28)).value == 1.0
    empty = replace(day, counts={"dead_letters": 0})
    assert judged("dead_letters", day=empty).reason == "the day has no events"


def test_an_expectation_is_not_judged_here() -> None:
    rule = Rule("expectation", "expectation", None, {}, "error")
    assert judge_day(HISTORY[-1], HISTORY, [rule]) == ()


def test_a_column_that_grows_like_a_sequence_does_not_drift() -> None:
    for type_ in ("drift", "range"):
        finding = judged(type_, "id")
        assert (finding.verdict, "sequence" in finding.reason) == ("unknown", True)


def closed_on_sundays(rows: int) -> tuple[DayProfile, ...]:
    return tuple(
        day_of(d.day, n, rows=0) if d.day.weekday() == 6 else d for n, d in enumerate(HISTORY)
    )


def test_an_empty_day_is_no_failure_on_a_weekday_that_was_closed_three_times() -> None:
    sunday, history = date(2024, 2, 11), closed_on_sundays(0)
    empty = day_of(sunday, 1, rows=0)
    for type_ in ("volume", "rows"):
        found = judged(type_, day=empty, history=history)
        assert (found.verdict, found.reason) == (
            "unknown",
            "5 of the last 5 Sundays had no rows either",
        )
    for weeks, verdict in ((3, "unknown"), (2, "failed")):
        known = tuple(d for d in history if d.day >= sunday - timedelta(weeks=weeks))
        assert judged("rows", day=empty, history=known).verdict == verdict
    declared = Rule("rows", "rows", None, {"min": 1}, "error", is_default=False)
    assert judge_day(empty, history, [declared])[0].verdict == "failed"


@pytest.mark.parametrize(("weeks", "busy"), [(3, "failed"), (2, "passed")])
def test_what_a_weekday_has_is_learned_from_three_of_them(weeks: int, busy: str) -> None:
    saturday = date(2024, 2, 3)
    low = {d.day: day_of(d.day, n, rows=240) for n, d in enumerate(HISTORY)}
    always = tuple(low[d.day] if d.day.weekday() == 5 else d for d in HISTORY)
    known = tuple(d for d in always if saturday - timedelta(weeks=weeks) <= d.day < saturday)
    assert judged("volume", day=low[saturday], history=known).verdict == "passed"
    assert judged("volume", day=day_of(saturday, 98), history=known).verdict == busy
    friday = saturday - timedelta(1)
    assert judged("volume", day=low[friday], history=always).verdict == "failed"


@pytest.mark.parametrize(
    ("share", "is_default", "severity"),
    [(0.05, True, "warn"), (0.5, True, "error"), (0.05, False, "error")],
)
def test_a_learned_limit_passed_by_a_little_is_a_warning(
    share: float, *, is_default: bool, severity: str
) -> None:
    def change(values: Any) -> Any:
        return pa.array(values, mask=np.arange(len(values)) < share * len(values))

    rule = Rule("null_rate", "null_rate", "amount", {}, "error", is_default=is_default)
    [found] = judge_day(day_of(TODAY, 99, amount=change), HISTORY, [rule])
    assert (found.verdict, found.rule.severity) == ("failed", severity)


def test_what_one_weekday_always_does_is_usual_on_it() -> None:
    doubled = tuple(
        day_of(d.day, n, amount=lambda v: v * 4) if d.day.weekday() == 0 else d
        for n, d in enumerate(HISTORY)
    )
    monday = day_of(TODAY, 99, amount=lambda v: v * 4)
    assert TODAY.weekday() == 0
    assert judged("drift", "amount", monday, history=doubled).verdict == "passed"
    tuesday = day_of(TODAY + timedelta(1), 99, amount=lambda v: v * 8)
    assert judged("drift", "amount", tuesday, history=doubled).verdict == "failed"


def test_a_declared_baseline_is_used_instead_and_may_lie_far_back() -> None:
    old = tuple(day_of(FIRST - timedelta(400 - n), n, amount=lambda v: v * 5) for n in range(10))
    named: dict[str, Any] = {"baseline": {"start": "2022-11-01", "end": "2022-12-31"}}
    now = judged("drift", "amount", history=(*old, *HISTORY), **named)
    assert (now.verdict, now.baseline_days) == ("failed", 10)
    assert judged("drift", "amount", history=(*old, *HISTORY)).verdict == "passed"


def test_a_feature_whose_window_is_not_full_is_not_compared() -> None:
    early = judged("drift", "amount", settled=(TODAY + timedelta(1)).isoformat())
    assert (early.verdict, early.reason) == (
        "unknown",
        "the feature's window is not full before 2024-02-06",
    )
    few = judged("drift", "amount", settled=(TODAY - timedelta(3)).isoformat())
    assert few.reason.startswith("3 earlier days")


def test_later_and_long_gone_days_change_nothing() -> None:
    gone = tuple(
        day_of(TODAY - timedelta(HISTORY_DAYS + 1 + n), n, amount=lambda v: v * 9) for n in range(5)
    )
    later = day_of(TODAY + timedelta(1), 5, amount=lambda v: v * 9)
    for type_, column, arguments in RULES:
        alone = judged(type_, column, **arguments)
        among = judged(type_, column, history=(later, *HISTORY[::-1], *gone), **arguments)
        assert alone == among


def test_new_values_that_keep_coming_are_no_news() -> None:
    def stranger(number: int) -> Any:
        return lambda v: np.where(np.arange(len(v)) % 20, v, f"new{number}")

    history = tuple(day_of(d.day, n, channel=stranger(n)) for n, d in enumerate(HISTORY))
    day = day_of(TODAY, 99, channel=stranger(99))
    assert judged("unseen", "channel", day, history=history).verdict == "passed"


def test_a_histogram_comes_with_drift_and_adds_up_to_the_rows() -> None:
    for column in ("amount", "channel", "at"):
        found = judged("drift", column).histogram
        assert found is not None
        assert len(found.labels) == len(found.baseline) == len(found.actual)
        assert sum(found.actual) == pytest.approx(960)
        assert round(sum(found.baseline)) == 28 * 960
    assert judged("frozen", "amount").histogram is None


def test_a_finding_is_a_json_document() -> None:
    document = judged("null_rate", "amount", max=0.5).document()
    assert document["verdict"] == "passed"
    assert (document["column"], document["value"], document["high"]) == ("amount", 0.0, 0.5)
