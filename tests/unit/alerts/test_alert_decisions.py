"""Which transitions follow from what was seen."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from alerts.conditions import Condition, Transition
from alerts.decision import NO_LONGER_DECLARED, Decision, decide
from alerts.facts import Fact, Severity, Story, Subject
from alerts.message import Bases, Message, message_of, redact, subject_text
from alerts.routing import Match, Route, Routing

HOUR_MS = 3_600_000
NULLS = Subject("check", "events/payments", "null_rate", "2020-01-01")
DAY = Subject("partition", "features/spend", "", "2020-01-01")
RUN = Subject("run", "backfill_spend", "", "2020-01-01..2020-01-03")


class Watcher:
    """Keeps the conditions between decisions, as the database does."""

    def __init__(self, renotify_ms: int = 24 * HOUR_MS) -> None:
        self.renotify_ms = renotify_ms
        self.conditions: dict[str, Condition] = {}

    def see(
        self, *facts: Fact, now_ms: int = 1_000_000, gone: Iterable[str] = ()
    ) -> Sequence[Transition]:
        decision = self.decide(facts, now_ms, gone)
        # What is stored is JSON: nothing may get lost in it.
        self.conditions |= {
            name: Condition.from_json(one.to_json()) for name, one in decision.changed.items()
        }
        assert all(self.conditions[name] == one for name, one in decision.changed.items())
        return decision.transitions

    def decide(self, facts: Iterable[Fact], now_ms: int, gone: Iterable[str] = ()) -> Decision:
        return decide(
            self.conditions,
            facts,
            now_ms=now_ms,
            renotify_ms=self.renotify_ms,
            route=lambda *_: ("log",),
            gone=list(gone),
        )


def bad(at_ms: int, subject: Subject = NULLS, severity: Severity = "error", **more: Any) -> Fact:
    return Fact(subject, severity, is_ok=False, at_ms=at_ms, story=Story("12 % null"), **more)


def good(at_ms: int, subject: Subject = NULLS, severity: Severity = "error", **more: Any) -> Fact:
    return Fact(subject, severity, is_ok=True, at_ms=at_ms, story=Story("passed"), **more)


def told(transitions: Sequence[Transition]) -> list[tuple[str, int]]:
    return [(one.change, one.at_ms) for one in transitions]


def test_a_failure_opens_once_and_a_success_resolves_once() -> None:
    watcher = Watcher()
    assert told(watcher.see(bad(10))) == [("opened", 10)]
    assert told(watcher.see(bad(20))) == []
    assert told(watcher.see(good(30))) == [("resolved", 30)]
    assert told(watcher.see(good(40))) == []
    assert told(watcher.see(bad(50))) == [("opened", 50)]


def test_a_success_of_what_never_failed_is_no_news() -> None:
    assert Watcher().see(good(10)) == ()


def test_reading_everything_again_changes_nothing() -> None:
    watcher = Watcher()
    facts = [bad(10), good(20), bad(30), good(40), bad(50)]
    assert len(watcher.see(*facts)) == 5
    for fact in facts:
        assert watcher.see(fact) == ()
    assert watcher.decide(facts, 2_000_000).changed == {}


def test_facts_of_one_look_are_taken_in_their_own_order() -> None:
    watcher = Watcher()
    assert told(watcher.see(good(20), bad(30), bad(10))) == [
        ("opened", 10),
        ("resolved", 20),
        ("opened", 30),
    ]


def test_an_older_failure_that_is_read_late_is_told_with_its_end() -> None:
    watcher = Watcher()
    watcher.see(good(30))
    assert told(watcher.see(bad(10))) == [("opened", 10), ("resolved", 30)]
    assert watcher.see(bad(10)) == ()


def test_an_older_success_that_is_read_late_heals_nothing() -> None:
    watcher = Watcher()
    watcher.see(bad(10))
    watcher.see(bad(30))
    assert watcher.see(good(20)) == ()
    assert told(watcher.see(good(40))) == [("resolved", 40)]


def test_a_late_failure_from_within_a_told_incident_is_part_of_it() -> None:
    watcher = Watcher()
    watcher.see(bad(10), good(40))
    assert watcher.see(bad(20)) == ()
    assert watcher.see(bad(5)) == ()


def test_the_same_millisecond_is_told_apart_by_origin() -> None:
    watcher = Watcher()
    assert told(watcher.see(bad(10, origin="run a"), good(10, origin="run b"))) == [
        ("opened", 10),
        ("resolved", 10),
    ]


def test_severities_and_partitions_are_incidents_of_their_own() -> None:
    other = replace(NULLS, partition="2020-01-02")
    opened = Watcher().see(bad(10), bad(10, severity="warn"), bad(10, other))
    assert len({one.incident.id for one in opened}) == 3
    assert len({one.key for one in opened}) == 3


def test_keys_are_the_same_however_often_a_look_is_decided() -> None:
    facts = [bad(10), good(20)]
    first, second = Watcher().see(*facts), Watcher().see(*facts, now_ms=9_999_999)
    assert [one.key for one in first] == [one.key for one in second]
    opened, resolved = (one.key.partition(":") for one in first)
    assert opened[0] == resolved[0]
    assert (opened[2], resolved[2]) == ("opened", "resolved")


def test_what_stays_open_is_told_again_after_each_window() -> None:
    watcher = Watcher(renotify_ms=HOUR_MS)
    watcher.see(bad(10), now_ms=0)
    assert watcher.see(now_ms=HOUR_MS - 1) == ()
    [first] = watcher.see(now_ms=HOUR_MS)
    assert (first.change, first.number) == ("still", 1)
    assert watcher.see(now_ms=HOUR_MS + 1) == ()
    [second] = watcher.see(now_ms=50 * HOUR_MS)
    assert (second.change, second.number) == ("still", 2)
    assert second.key != first.key
    watcher.see(good(20), now_ms=51 * HOUR_MS)
    assert watcher.see(now_ms=99 * HOUR_MS) == ()


def test_a_failure_that_must_last_opens_only_after_that_and_says_since_when() -> None:
    watcher = Watcher()
    assert watcher.see(bad(0, hold_ms=100)) == ()
    assert watcher.see(bad(99, hold_ms=100)) == ()
    [opened] = watcher.see(bad(100, hold_ms=100))
    assert opened.incident.opened_ms == 0
    assert told(watcher.see(good(110))) == [("resolved", 110)]
    assert watcher.see(bad(120, hold_ms=100)) == ()
    assert watcher.see(good(130)) == ()


def test_what_is_declared_no_more_is_closed_with_that_reason() -> None:
    watcher = Watcher()
    watcher.see(bad(10), bad(10, DAY))
    [closed] = watcher.see(gone=[bad(10).fingerprint], now_ms=500)
    assert (closed.change, closed.subject, closed.note) == ("resolved", NULLS, NO_LONGER_DECLARED)
    assert watcher.see(gone=[bad(10).fingerprint], now_ms=600) == ()
    assert told(watcher.see(bad(700))) == [("opened", 700)]


AWAITED = [replace(DAY, partition=f"2020-01-0{day}") for day in (1, 2)]


def test_a_failed_run_is_over_once_others_have_built_what_it_should_have() -> None:
    watcher = Watcher()
    watcher.see(bad(10, RUN, awaits=[one.key for one in AWAITED]))
    assert watcher.see(good(20, AWAITED[0])) == ()
    [resolved] = watcher.see(good(30, AWAITED[1]))
    assert (resolved.change, resolved.subject, resolved.at_ms) == ("resolved", RUN, 30)


def test_what_was_built_before_is_not_what_a_failed_run_waits_for() -> None:
    watcher = Watcher()
    watcher.see(good(5, AWAITED[0]))
    watcher.see(bad(10, RUN, awaits=[AWAITED[0].key]))
    assert told(watcher.see(bad(15, AWAITED[0]))) == [("opened", 15)]
    both = watcher.see(good(20, AWAITED[0]))
    assert [one.subject for one in both] == [AWAITED[0], RUN]


def test_a_rebuild_that_was_read_before_the_failure_still_ends_it() -> None:
    watcher = Watcher()
    watcher.see(good(20, AWAITED[0]))
    assert told(watcher.see(bad(10, RUN, awaits=[AWAITED[0].key]))) == [
        ("opened", 10),
        ("resolved", 20),
    ]


def test_a_check_that_could_not_run_is_awaited_until_it_is_judged_either_way() -> None:
    watcher = Watcher()
    watcher.see(bad(10, RUN, awaits=[NULLS.key]))
    transitions = watcher.see(bad(20), good(20, severity="warn"))
    assert [(one.change, one.subject) for one in transitions] == [
        ("opened", NULLS),
        ("resolved", RUN),
    ]


def test_a_success_of_the_same_run_ends_it_whatever_it_awaits() -> None:
    watcher = Watcher()
    watcher.see(bad(10, RUN, awaits=[AWAITED[0].key]))
    assert told(watcher.see(good(20, RUN))) == [("resolved", 20)]


def test_who_was_told_of_an_incident_hears_of_its_end() -> None:
    watcher = Watcher()
    watcher.see(bad(10))
    decision = decide(
        watcher.conditions, [good(20)], now_ms=0, renotify_ms=HOUR_MS, route=lambda *_: ("other",)
    )
    assert decision.transitions[0].incident.sinks == ("log",)


ROUTING = Routing(
    routes=(
        Route(Match(owners=("payments@example.com",), severities=("error",)), ("pager",)),
        Route(Match(tags={"domain": "payments"}), ("chat", "pager")),
        Route(Match(kinds=("stream",), names=("spend*",)), ("streams",)),
    ),
    fallback=("mail",),
    operators=("ops",),
    sinks=("pager", "chat", "streams", "mail", "ops"),
)


@pytest.mark.parametrize(
    ("subject", "severity", "story", "sinks"),
    [
        (NULLS, "error", Story(owners=("payments@example.com",)), ("pager",)),
        (NULLS, "warn", Story(owners=("payments@example.com",)), ("mail",)),
        (NULLS, "error", Story(tags={"domain": "payments"}), ("chat", "pager")),
        (
            NULLS,
            "error",
            Story(owners=("payments@example.com", "x"), tags={"domain": "payments"}),
            ("pager", "chat"),
        ),
        (Subject("stream", "spend_by_hour"), "error", Story(), ("streams",)),
        (Subject("daemon", "SENSOR"), "error", Story(), ("ops",)),
        (Subject("sink", "pager"), "error", Story(), ("ops",)),
        (Subject("sink", "ops"), "error", Story(), ("pager", "chat", "streams", "mail")),
    ],
)
def test_alerts_go_to_every_route_that_fits(
    subject: Subject, severity: Severity, story: Story, sinks: tuple[str, ...]
) -> None:
    assert ROUTING.sinks_of(subject, severity, story) == sinks


def test_a_message_says_what_where_since_when_and_links_to_it() -> None:
    watcher = Watcher()
    story = Story("12 % null", {"actual": "0.12"}, ("a@example.com",), {}, "r1", "docs/runbooks.md")
    watcher.see(replace(bad(10_000), story=story))
    [resolved] = watcher.see(replace(good(20_000), story=Story("passed", run_id="r2")))
    message = message_of(resolved, Bases("http://dagster", "https://docs.example.com"))
    assert message.title == "RESOLVED: check null_rate of events/payments, 2020-01-01"
    assert message.details == {"failing since": "1970-01-01T00:00:10Z"}
    assert message.owners == ("a@example.com",)
    assert message.links == {
        "run": "http://dagster/runs/r2",
        "check": "http://dagster/assets/events/payments?view=checks&checkDetail=null_rate",
        "partition": "http://dagster/assets/events/payments?view=partitions&partition=2020-01-01",
        "runbook": "https://docs.example.com/runbooks.md",
    }
    assert Message.from_json(message.to_json()) == message


def test_a_title_names_the_days_that_its_subject_does_not() -> None:
    story = Story("it waits for payments.csv", days="2020-01-18..2020-01-19")
    late = Fact(
        Subject("late", "events/payments_events"), "error", is_ok=False, at_ms=1, story=story
    )
    [opened] = Watcher().see(late)
    title = message_of(opened).title
    assert title == "FAILED: late files of events/payments_events, 2020-01-18..2020-01-19"


def test_long_texts_are_cut_and_credentials_blotted_out() -> None:
    assert redact("token: abc; s3://key:secret@host") == "token: *** s3://***@host"
    story = Story("x" * 5_000, {f"d{i}": "y" * 900 for i in range(40)})
    [opened] = Watcher().see(replace(bad(1), story=story))
    message = message_of(opened)
    assert len(message.summary) == 800
    assert len(message.details) == 12
    assert max(len(value) for value in message.details.values()) == 300


def test_every_kind_is_named_in_words() -> None:
    assert subject_text(DAY) == "build of features/spend, 2020-01-01"
    assert subject_text(RUN) == "run of backfill_spend, 2020-01-01..2020-01-03"
    assert subject_text(Subject("stream", "spend", "behind")) == "stream spend behind"
