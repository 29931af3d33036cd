"""The outbox and what empties it, against real receivers and a real database."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from alerts.conditions import Transition
from alerts.configuration import VERSION, AlertConfig, read_config
from alerts.decision import decide
from alerts.delivery import LEASE_MS, SinkReport, deliver
from alerts.facts import Fact, Story, Subject
from alerts.message import heartbeat_message, message_of
from alerts.outbox import Outbox, SinkStatus
from alerts.state import AlertStore, Posting, Watch
from resources.settings import settings_from_env
from tests.support import alert_receivers as receivers
from tests.support.alert_receivers import ROUTING_KEY, HttpReceiver, serving

FILE = f"""
version: {VERSION}
sinks:
  hook: {{type: webhook, url: "${{HOOK_URL}}"}}
  pager: {{type: pagerduty, routing_key: "${{PAGER_KEY}}", url: "${{PAGER_URL}}"}}
digest: {{above: 3, size: 4, window: 1m}}
"""


class Desk:
    """A database, two receivers, and a clock that only tests move."""

    def __init__(self, home: Path, hook: HttpReceiver, pager: HttpReceiver) -> None:
        self.store = AlertStore.open(settings_from_env({"MILLRACE_HOME": str(home)}))
        self.outbox = Outbox(self.store.engine)
        self.config = read_config(FILE)
        self.hook, self.pager = hook, pager
        self.clock_ms = 1_000_000_000_000

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOOK_URL": self.hook.url,
            "PAGER_URL": self.pager.url,
            "PAGER_KEY": ROUTING_KEY,
        }

    def post(self, *days: int, is_ok: bool = False, sinks: Sequence[str] = ("hook",)) -> list[str]:
        """Queue one transition per day; returns their keys."""
        facts = [
            Fact(
                Subject("check", "events/payments", "null_rate", f"2020-01-{day:02d}"),
                "error",
                is_ok,
                self.clock_ms + (1 if is_ok else 0),
                Story("passed" if is_ok else "12 % null"),
            )
            for day in days
        ]
        with self.store.deciding() as book:
            decision = decide(
                book.conditions(fact.fingerprint for fact in facts),
                facts,
                now_ms=self.clock_ms,
                renotify_ms=10**12,
                route=lambda *_: tuple(sinks),
            )
            book.set_conditions(decision.changed)
            told: Sequence[Transition] = decision.transitions
            book.post([Posting(message_of(t), s) for t in told for s in sinks], self.clock_ms)
        return [transition.key for transition in told]

    def deliver(self, config: AlertConfig | None = None) -> dict[str, SinkReport]:
        reports = deliver(
            self.outbox, config or self.config, clock=lambda: self.clock_ms, env=self.env
        )
        return {report.sink: report for report in reports}

    def status(self, sink: str) -> SinkStatus:
        return self.outbox.statuses([sink], self.clock_ms)[sink]

    @property
    def hook_keys(self) -> list[str]:
        return [one["key"] for body in self.hook.bodies for one in body["messages"]]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(receivers.webhook()) as hook, serving(receivers.pagerduty()) as pager:
        found = Desk(tmp_path, hook, pager)
        yield found
        found.store.close()


def test_what_waits_is_sent_once_and_in_order(desk: Desk) -> None:
    keys = [*desk.post(1, 2), *desk.post(2, is_ok=True)]
    assert desk.deliver()["hook"].sent == 3
    assert desk.hook_keys == keys
    assert desk.deliver() == {}
    assert desk.hook_keys == keys


def test_a_transition_is_queued_once_for_each_sink(desk: Desk) -> None:
    desk.post(1, sinks=("hook", "pager"))
    assert desk.post(1, sinks=("hook", "pager")) == []
    with desk.store.deciding() as book:
        message = heartbeat_message(7, desk.clock_ms, "Nothing is open.")
        book.post([Posting(message, "hook"), Posting(message, "hook")], desk.clock_ms)
    assert (desk.status("hook").pending, desk.status("pager").pending) == (2, 1)


def test_a_storm_is_sent_as_digests_of_limited_size(desk: Desk) -> None:
    keys = desk.post(*range(1, 11))
    desk.deliver()
    assert [len(body["messages"]) for body in desk.hook.bodies] == [4, 4, 2]
    assert desk.hook_keys == keys
    assert desk.hook.bodies[0]["key"].startswith("digest:")


def test_a_trickle_that_becomes_a_storm_is_put_together_too(desk: Desk) -> None:
    for day in (1, 2, 3):
        desk.post(day)
        desk.deliver()
    desk.post(4, 5)
    desk.deliver()
    assert [len(body["messages"]) for body in desk.hook.bodies] == [1, 1, 1, 2]
    desk.clock_ms += 61_000
    desk.post(6, 7)
    desk.deliver()
    assert [len(body["messages"]) for body in desk.hook.bodies] == [1, 1, 1, 2, 1, 1]


def paged(desk: Desk) -> list[tuple[str, str]]:
    return [(body["event_action"], body["dedup_key"]) for body in desk.pager.bodies]


def test_a_pager_gets_an_alert_per_incident_and_resolves_it(desk: Desk) -> None:
    desk.post(1, 2, sinks=("pager",))
    desk.post(2, is_ok=True, sinks=("pager",))
    desk.deliver()
    assert [action for action, _ in paged(desk)] == ["trigger", "trigger", "resolve"]
    assert paged(desk)[2][1] == paged(desk)[1][1] != paged(desk)[0][1]


def test_a_storm_is_one_page_that_is_resolved_with_its_last_incident(desk: Desk) -> None:
    desk.post(1, 2, 3, 4, sinks=("pager",))
    desk.deliver()
    [(action, page)] = paged(desk)
    assert (action, page.startswith("digest:")) == ("trigger", True)
    details = desk.pager.bodies[0]["payload"]["custom_details"]
    assert len(details) == 4
    desk.clock_ms += 100_000
    desk.post(3, 1, is_ok=True, sinks=("pager",))
    assert desk.deliver()["pager"].error == ""
    assert len(paged(desk)) == 1
    desk.post(2, 4, is_ok=True, sinks=("pager",))
    desk.deliver()
    assert paged(desk)[1:] == [("resolve", page)]
    desk.clock_ms += 100_000
    desk.post(1, sinks=("pager",))
    desk.deliver()
    assert paged(desk)[-1][0] == "trigger"
    assert paged(desk)[-1][1] != page
    assert desk.status("pager").pending == 0


def test_a_storm_that_heals_before_it_is_sent_is_paged_and_resolved_once(desk: Desk) -> None:
    desk.post(1, 2, 3, 4, sinks=("pager",))
    desk.post(1, 2, 3, 4, is_ok=True, sinks=("pager",))
    desk.deliver()
    assert [action for action, _ in paged(desk)] == ["trigger", "resolve"]


def test_a_sign_of_life_is_in_no_digest(desk: Desk) -> None:
    desk.post(*range(1, 4))
    with desk.store.deciding() as book:
        message = heartbeat_message(7, desk.clock_ms, "Nothing is open.")
        book.post([Posting(message, "hook")], desk.clock_ms)
    desk.post(*range(4, 7))
    desk.deliver()
    assert [len(body["messages"]) for body in desk.hook.bodies] == [3, 1, 3]
    assert desk.hook.bodies[1]["messages"][0]["status"] == "heartbeat"


def test_a_sink_that_is_away_keeps_its_queue_and_holds_up_no_other(desk: Desk) -> None:
    keys = desk.post(1, 2, sinks=("hook", "pager"))
    desk.hook.answers = [(503, None)]
    reports = desk.deliver()
    assert "answered 503" in reports["hook"].error
    assert (reports["hook"].sent, reports["pager"].sent) == (0, 2)
    assert desk.status("hook").pending == 2
    desk.clock_ms += 14_999
    assert desk.deliver() == {}
    desk.clock_ms += 1
    assert desk.deliver()["hook"].sent == 2
    assert desk.hook_keys == keys
    assert desk.status("hook").down_since_ms is None


def test_pauses_double_up_to_ten_minutes_and_begin_anew_after_a_success(desk: Desk) -> None:
    desk.post(1)
    pauses_s = []
    for _ in range(8):
        desk.hook.answers = [(500, None)]
        desk.deliver()
        pauses_s.append((desk.status("hook").not_before_ms - desk.clock_ms) / 1000)
        desk.clock_ms = desk.status("hook").not_before_ms
    assert pauses_s == [15, 30, 60, 120, 240, 480, 600, 600]
    assert desk.status("hook").failures == 8
    desk.deliver()
    desk.post(2)
    desk.hook.answers = [(500, None)]
    desk.deliver()
    assert desk.status("hook").failures == 1


def test_a_sink_is_left_alone_for_as_long_as_it_asks(desk: Desk) -> None:
    desk.post(1)
    desk.hook.answers = [(429, "90")]
    desk.deliver()
    assert desk.status("hook").not_before_ms == desk.clock_ms + 90_000


def test_a_message_that_is_refused_for_good_is_put_aside_and_said(desk: Desk) -> None:
    first, second = desk.post(1, 2)
    desk.hook.answers = [(422, None)]
    report = desk.deliver()["hook"]
    assert report.sent == 1
    assert "answered 422" in report.refused[0]
    assert desk.hook_keys == [second]
    assert (desk.status("hook").parked, desk.status("hook").pending) == (1, 0)
    assert desk.outbox.retry("hook") == 1
    desk.deliver()
    assert desk.hook_keys == [second, first]


def test_a_digest_that_is_refused_is_sent_one_by_one(desk: Desk) -> None:
    keys = desk.post(1, 2, 3, 4)
    desk.hook.answers = [(413, None), (413, None)]
    desk.deliver()
    assert desk.hook_keys == keys[1:]
    assert desk.status("hook").parked == 1


def test_a_digest_is_the_same_at_every_attempt(desk: Desk) -> None:
    desk.post(1, 2, 3, 4)
    first = desk.outbox.next("hook", "digest", desk.config.digests, desk.clock_ms)
    desk.post(5, 6)
    again = desk.outbox.next("hook", "digest", desk.config.digests, desk.clock_ms)
    assert first is not None
    assert again == first
    desk.deliver()
    assert desk.hook.bodies[0]["key"] == first.delivery.key
    assert [len(body["messages"]) for body in desk.hook.bodies] == [4, 2]


def test_a_message_that_may_have_arrived_is_put_into_no_digest(desk: Desk) -> None:
    desk.post(1)
    alone = desk.outbox.next("hook", "digest", desk.config.digests, desk.clock_ms)
    desk.post(2, 3, 4, 5, 6)
    again = desk.outbox.next("hook", "digest", desk.config.digests, desk.clock_ms)
    assert alone is not None
    assert again == alone
    desk.deliver()
    assert desk.hook.bodies[0]["key"] == alone.delivery.key
    assert [len(body["messages"]) for body in desk.hook.bodies] == [1, 4, 1]


def test_only_one_process_sends_to_a_sink_and_a_dead_one_holds_it_up_for_a_while(
    desk: Desk,
) -> None:
    desk.post(1)
    assert desk.outbox.renew("hook", "dead", desk.clock_ms, LEASE_MS)
    assert desk.deliver() == {}
    desk.clock_ms += LEASE_MS
    assert desk.deliver()["hook"].sent == 1


def test_a_lease_is_given_back_at_the_end(desk: Desk) -> None:
    desk.post(1)
    desk.deliver()
    assert not desk.status("hook").is_leased


def test_a_sink_without_its_secret_keeps_its_queue(desk: Desk) -> None:
    desk.post(1, sinks=("pager",))
    env = {**desk.env, "PAGER_KEY": ""}
    [report] = deliver(desk.outbox, desk.config, clock=lambda: desk.clock_ms, env=env)
    assert "PAGER_KEY" in report.error
    assert desk.status("pager").pending == 1


def test_what_waits_for_a_sink_that_is_configured_no_more_is_dropped(desk: Desk) -> None:
    desk.post(1, sinks=("pager",))
    desk.deliver(read_config(FILE.replace("  pager:", "  other:")))
    assert desk.status("pager").pending == 0
    assert desk.pager.taken == []


def test_nothing_that_was_decided_counts_unless_all_of_it_was_written(desk: Desk) -> None:
    def die_before_the_end() -> None:
        with desk.store.deciding() as book:
            book.set_watch(Watch(5, 5))
            message = heartbeat_message(1, desk.clock_ms, "")
            book.post([Posting(message, "hook")], desk.clock_ms)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        die_before_the_end()
    assert desk.store.watch() is None
    assert desk.status("hook").pending == 0


def test_what_is_over_is_forgotten_and_what_is_open_or_waits_is_not(desk: Desk) -> None:
    desk.post(1, 2)
    desk.deliver()
    desk.post(2, is_ok=True)
    later_ms = desk.clock_ms + 1_000
    with desk.store.deciding() as book:
        book.forget(before_ms=later_ms)
    [left] = desk.store.open_conditions()
    assert left.subject.partition == "2020-01-01"
    assert desk.status("hook").pending == 1


def test_runs_that_were_read_are_known_until_they_are_forgotten(desk: Desk) -> None:
    updates = [(f"run {i}", i) for i in range(1_000)]
    with desk.store.deciding() as book:
        book.add_seen(updates, forget_before_us=0)
        book.add_seen(updates[:10], forget_before_us=500)
    assert desk.store.unseen([("run 3", 3), ("run 499", 499), ("run 500", 501)]) == [
        ("run 499", 499),
        ("run 500", 501),
    ]
    assert desk.store.unseen(updates[500:]) == []
