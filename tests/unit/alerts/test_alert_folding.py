"""One cause, one incident: what is folded under what, when, and what becomes of it."""

from collections.abc import Sequence
from typing import Any

import pytest

from alerts.causes import NO_CAUSES, Candidate, Causes
from alerts.conditions import Condition, Transition
from alerts.decision import decide
from alerts.facts import Fact, Kind, Severity, Story, Subject
from alerts.folding import CAUSE_HEALED, Folds, followers_of
from alerts.message import message_of

MINUTE_MS = 60_000
HOLD, SETTLE = 2 * MINUTE_MS, 30 * MINUTE_MS
EVENTS, TILES, FEATURES = "events/payments", "tiles/spend", "features/spend"
CAUSES = Causes(
    upstream={TILES: {EVENTS}, FEATURES: {EVENTS}, "features/visits": {"events/visits"}},
    reach={TILES: 7, FEATURES: 7},
    builds={"payments_daily": {EVENTS, FEATURES}},
)


def day(number: int) -> str:
    return f"2020-01-{number:02d}"


def check(aspect: str, number: int = 1, name: str = EVENTS) -> Subject:
    return Subject("check", name, aspect, day(number))


def of(kind: Kind, name: str, number: int | None = None) -> Subject:
    return Subject(kind, name, "", day(number)) if number else Subject(kind, name)


class Watcher:
    """Keeps the conditions between looks, as JSON, and counts the sinks of each message."""

    def __init__(self, causes: Causes = CAUSES) -> None:
        self.folds = Folds(causes, HOLD, SETTLE)
        self.conditions: dict[str, Condition] = {}
        self.now_ms = 0
        self.sinks: dict[str, tuple[str, ...]] = {}

    def see(self, *facts: Fact, after_ms: int = 15_000) -> Sequence[Transition]:
        self.now_ms += after_ms
        decision = decide(
            self.conditions,
            facts,
            now_ms=self.now_ms,
            renotify_ms=24 * 60 * MINUTE_MS,
            route=lambda subject, *_: self.sinks.get(subject.name, ("log",)),
            folds=self.folds,
        )
        self.conditions |= {
            name: Condition.from_json(one.to_json()) for name, one in decision.changed.items()
        }
        return decision.transitions

    def bad(self, subject: Subject, severity: Severity = "error", **more: Any) -> Fact:
        story = Story(f"{subject.key} fails")
        return Fact(subject, severity, is_ok=False, at_ms=self.now_ms, story=story, **more)

    def good(self, subject: Subject, severity: Severity = "error") -> Fact:
        return Fact(subject, severity, is_ok=True, at_ms=self.now_ms + 1, story=Story("well"))


def told(transitions: Sequence[Transition]) -> list[tuple[str, Subject]]:
    return [(one.change, one.subject) for one in transitions]


HOUR = check("completeness", 3)


def test_a_bad_day_is_one_incident_that_lists_what_follows_from_it() -> None:
    watcher = Watcher()
    followers = [
        check("volume", 3),
        check("drift", 3),
        check("some_check_of_ours", 3),
        check("volume", 3, FEATURES),
        check("drift", 5, FEATURES),
        check("drift", 4),
        of("partition", TILES, 3),
    ]
    [opened] = watcher.see(*(watcher.bad(one) for one in (*followers, HOUR)))
    assert (opened.change, opened.subject) == ("opened", HOUR)
    assert sorted(opened.followers, key=str) == sorted(followers, key=str)
    message = message_of(opened)
    assert message.details["folded"].startswith("7 more fail because of it: ")
    assert len(message.folded) == 7
    watcher.see(*(watcher.good(one) for one in followers), after_ms=SETTLE)
    assert told(watcher.see(watcher.good(HOUR))) == [("resolved", HOUR)]


@pytest.mark.parametrize(
    ("cause", "follower"),
    [
        (of("daemon", "SCHEDULER"), of("tick", "payments_daily")),
        (of("daemon", "SCHEDULER"), of("days", EVENTS)),
        (of("tick", "payments_daily"), of("days", EVENTS)),
        (of("partition", EVENTS, 3), of("days", FEATURES)),
        (of("partition", EVENTS, 3), of("partition", FEATURES, 9)),
        (of("days", EVENTS), of("days", FEATURES)),
        (of("late", EVENTS), of("days", FEATURES)),
        (of("late", EVENTS), check("freshness", 3)),
        (of("late", EVENTS), check("null_rate", 3, FEATURES)),
        (check("null_rate"), check("null_rate", 2)),
        (check("null_rate"), of("partition", FEATURES, 1)),
        (Subject("stream", "spend", "given up"), Subject("stream", "spend", "not running")),
    ],
)
def test_what_follows_is_folded_and_never_the_other_way_round(
    cause: Subject, follower: Subject
) -> None:
    assert CAUSES.explains(Candidate(cause, "error"), Candidate(follower, "error"))
    assert not CAUSES.explains(Candidate(follower, "error"), Candidate(cause, "error"))
    assert not NO_CAUSES.explains(Candidate(cause, "error"), Candidate(follower, "error"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (check("null_rate"), check("null_rate", name="events/visits")),
        (check("null_rate"), check("null_rate", 9)),
        (check("null_rate"), check("volume", 9, FEATURES)),
        (check("null_rate"), check("volume", 1, "features/visits")),
        (of("tick", "visits_daily"), of("days", EVENTS)),
        (of("late", EVENTS), check("null_rate", 3)),
        (of("partition", EVENTS, 3), of("partition", EVENTS, 4)),
        (check("range", 3, FEATURES), check("range", 3)),
        (of("sink", "mail"), of("daemon", "SENSOR")),
    ],
)
def test_what_has_a_cause_of_its_own_is_an_incident_of_its_own(
    one: Subject, other: Subject
) -> None:
    watcher = Watcher()
    if one.name == FEATURES:
        assert not CAUSES.explains(Candidate(one, "error"), Candidate(other, "error"))
        return
    watcher.see(watcher.bad(one), watcher.bad(other))
    opened = {c.subject for c in watcher.conditions.values() if c.open_incident}
    assert opened == {one, other}
    assert not followers_of(watcher.conditions)


def test_what_is_made_without_a_late_file_is_folded_under_it() -> None:
    watcher = Watcher()
    late, drift = of("late", EVENTS), check("drift", 4, FEATURES)
    watcher.see(watcher.bad(late))
    assert watcher.see(watcher.bad(drift, "warn")) == ()
    assert told(watcher.see(watcher.good(late), watcher.good(drift, "warn"))) == [
        ("resolved", late)
    ]


def test_a_failed_run_tells_of_what_it_should_have_built_and_of_nothing_else() -> None:
    watcher = Watcher()
    run = Subject("run", "backfill", "", "2020-01-01..2020-01-02")
    awaits = [of("partition", EVENTS, 1).key, of("partition", EVENTS, 2).key]
    other = of("partition", EVENTS, 9)
    seen = watcher.see(
        watcher.bad(run, awaits=awaits),
        watcher.bad(of("partition", EVENTS, 2)),
        watcher.bad(of("days", EVENTS)),
        watcher.bad(other),
    )
    assert told(seen) == [("opened", run), ("opened", other)]


def test_an_error_is_never_folded_under_a_warning() -> None:
    watcher = Watcher()
    drift, nulls = check("drift", 1), check("null_rate", 1, FEATURES)
    assert told(watcher.see(watcher.bad(drift, "warn"))) == [("opened", drift)]
    watcher.see(watcher.bad(nulls))
    assert told(watcher.see(after_ms=HOLD)) == [("opened", nulls)]


def test_a_warning_upstream_is_folded_under_the_error_of_its_day() -> None:
    watcher = Watcher()
    drift, nulls = check("drift", 1), check("null_rate", 1, FEATURES)
    assert watcher.see(watcher.bad(drift, "warn"), watcher.bad(nulls)) == ()
    [opened] = watcher.see(after_ms=HOLD)
    assert (opened.subject, opened.followers) == (nulls, (drift,))


def test_a_follower_that_is_read_before_its_cause_is_folded_without_a_page() -> None:
    watcher = Watcher()
    follower = check("volume", 3, FEATURES)
    assert watcher.see(watcher.bad(follower)) == ()
    [opened] = watcher.see(watcher.bad(HOUR))
    assert (opened.subject, opened.followers) == (HOUR, (follower,))
    assert watcher.see(after_ms=10 * HOLD) == ()


def test_a_follower_whose_cause_does_not_come_is_told_after_the_hold() -> None:
    watcher = Watcher()
    follower = check("volume", 3, FEATURES)
    watcher.see(watcher.bad(follower))
    assert watcher.see(after_ms=HOLD - 1) == ()
    [opened] = watcher.see(after_ms=1)
    assert (opened.subject, opened.note) == (follower, "")
    assert told(watcher.see(watcher.good(follower))) == [("resolved", follower)]


def test_what_heals_while_it_waits_is_told_with_its_end() -> None:
    watcher = Watcher()
    follower = check("volume", 3, FEATURES)
    watcher.see(watcher.bad(follower))
    assert told(watcher.see(watcher.good(follower))) == [
        ("opened", follower),
        ("resolved", follower),
    ]


def test_a_cause_and_its_followers_that_opened_and_healed_unseen_are_one_incident() -> None:
    watcher = Watcher()
    follower = check("volume", 3)
    seen = watcher.see(
        watcher.bad(HOUR), watcher.bad(follower), watcher.good(HOUR), watcher.good(follower)
    )
    assert told(seen) == [("opened", HOUR), ("resolved", HOUR)]


def test_a_follower_that_fails_after_its_cause_has_healed_is_told_at_once() -> None:
    watcher = Watcher()
    follower = check("volume", 3)
    watcher.see(watcher.bad(HOUR), watcher.bad(follower))
    [resolved] = watcher.see(watcher.good(HOUR))
    assert (resolved.subject, resolved.followers) == (HOUR, (follower,))
    [opened] = watcher.see(watcher.bad(follower))
    assert (opened.change, opened.subject, opened.note) == ("opened", follower, CAUSE_HEALED)


def test_a_follower_that_is_not_seen_to_heal_is_told_after_a_while() -> None:
    watcher = Watcher()
    heals, stays = check("volume", 3), check("drift", 3)
    watcher.see(watcher.bad(HOUR), watcher.bad(heals), watcher.bad(stays))
    watcher.see(watcher.good(HOUR))
    assert watcher.see(watcher.good(heals), after_ms=SETTLE - MINUTE_MS) == ()
    assert told(watcher.see(after_ms=MINUTE_MS)) == [("opened", stays)]
    assert watcher.see(after_ms=MINUTE_MS) == ()


def test_of_several_followers_left_behind_one_is_told_and_the_others_follow_it() -> None:
    watcher = Watcher()
    left = [check("volume", 3), check("drift", 3), check("drift", 3, FEATURES)]
    watcher.see(watcher.bad(HOUR), *map(watcher.bad, left))
    watcher.see(watcher.good(HOUR))
    [opened] = watcher.see(after_ms=SETTLE)
    assert (opened.subject, set(opened.followers)) == (left[0], set(left[1:]))


def test_a_fault_that_lasts_is_carried_on_from_day_to_day() -> None:
    watcher = Watcher()
    opened = [
        one for n in range(1, 20, 3) for one in watcher.see(watcher.bad(check("null_rate", n)))
    ]
    assert told(opened) == [("opened", check("null_rate", 1))]
    assert told(watcher.see(watcher.bad(check("null_rate", 25)))) == [
        ("opened", check("null_rate", 25))
    ]


def test_owners_of_what_is_folded_are_told_of_the_cause_once() -> None:
    watcher = Watcher()
    watcher.sinks = {FEATURES: ("features-chat",)}
    [opened] = watcher.see(watcher.bad(HOUR))
    assert opened.sinks == ("log",)
    [joined] = watcher.see(watcher.bad(check("volume", 3, FEATURES)))
    assert (joined.key, joined.sinks) == (opened.key, ("features-chat",))
    assert watcher.see(watcher.bad(check("drift", 3, FEATURES))) == ()
    [resolved] = watcher.see(watcher.good(HOUR))
    assert resolved.sinks == ("log", "features-chat")


def test_errors_are_told_again_with_what_is_folded_and_warnings_are_told_once() -> None:
    watcher = Watcher()
    warning = check("drift", 3, "events/visits")
    watcher.see(watcher.bad(HOUR), watcher.bad(check("volume", 3)), watcher.bad(warning, "warn"))
    [still] = watcher.see(after_ms=24 * 60 * MINUTE_MS)
    assert (still.change, still.subject, len(still.followers)) == ("still", HOUR, 1)


def test_what_was_told_before_its_cause_came_is_resolved_and_not_told_again() -> None:
    watcher = Watcher()
    follower = check("volume", 3, FEATURES)
    watcher.see(watcher.bad(follower))
    watcher.see(after_ms=HOLD)
    [cause] = watcher.see(watcher.bad(HOUR))
    assert cause.followers == (follower,)
    assert told(watcher.see(after_ms=24 * 60 * MINUTE_MS)) == [("still", HOUR)]
    assert told(watcher.see(watcher.good(follower))) == [("resolved", follower)]


def test_conditions_that_were_kept_before_incidents_were_folded_are_read_as_told() -> None:
    watcher = Watcher()
    watcher.see(watcher.bad(HOUR))
    document = watcher.conditions[f"{HOUR.key}|error"].to_json()
    for name in ("is_told", "under"):
        del document["incident"][name]
    read = Condition.from_json(document)
    assert read.incident is not None
    assert (read.incident.is_told, read.incident.under) == (True, "")
    watcher.conditions = {read.fingerprint: read}
    assert watcher.see(watcher.bad(HOUR)) == ()
    assert told(watcher.see(watcher.good(HOUR))) == [("resolved", HOUR)]
