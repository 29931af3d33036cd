"""However faults and repairs follow each other: nothing that fails goes untold, and nothing twice."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from alerts.causes import Candidate, Causes
from alerts.conditions import Condition, Transition
from alerts.decision import decide
from alerts.facts import SEVERITIES, Fact, Severity, Subject
from alerts.folding import Folds, root_of

MINUTE_MS = 60_000
HOLD, SETTLE = 2 * MINUTE_MS, 30 * MINUTE_MS
ABOVE = {"tiles/v": {"events/s"}, "features/v": {"events/s"}, "uploads/v": {"events/s", "tiles/v"}}
CAUSES = Causes(ABOVE, {"features/v": 4, "tiles/v": 1}, {"s_daily": {"events/s", "features/v"}})

names = st.sampled_from(["events/s", "tiles/v", "features/v", "uploads/v", "events/other"])
days = st.integers(1, 6).map(lambda day: f"2020-01-0{day}")
checks = st.sampled_from(["rows", "completeness", "volume", "drift", "ours"])
subjects = st.one_of(
    st.builds(lambda n, c, d: Subject("check", n, c, d), names, checks, days),
    st.builds(lambda n, d: Subject("partition", n, "", d), names, days),
    st.builds(lambda n: Subject("days", n), names),
    st.sampled_from([Subject("tick", "s_daily"), Subject("daemon", "SCHEDULER")]),
    st.sampled_from([Subject("stream", "v", a) for a in ("given up", "not running", "behind")]),
    st.just(Subject("run", "job", "", "2020-01-01..2020-01-02")),
)
severities = st.sampled_from(SEVERITIES)
candidates = st.builds(Candidate, subjects, severities, is_root=st.booleans())
results = st.lists(st.tuples(subjects, severities, st.booleans()), max_size=25)


def decided(known: dict[str, Condition], facts: list[Fact], now_ms: int) -> tuple[Transition, ...]:
    decision = decide(
        known,
        facts,
        now_ms=now_ms,
        renotify_ms=10**12,
        route=lambda subject, *_: (subject.name,),
        folds=Folds(CAUSES, HOLD, SETTLE),
    )
    known |= decision.changed
    return decision.transitions


@given(candidates, candidates)
def test_what_explains_comes_earlier_in_one_order_so_nothing_explains_itself(
    cause: Candidate, follower: Candidate
) -> None:
    if CAUSES.explains(cause, follower):
        assert CAUSES.key(cause.subject, cause.severity) < CAUSES.key(
            follower.subject, follower.severity
        )
        assert SEVERITIES.index(cause.severity) <= SEVERITIES.index(follower.severity)


@given(results, st.data())
def test_whatever_fails_is_told_or_listed_by_what_is_told_and_each_sink_hears_once(
    seen: list[tuple[Subject, Severity, bool]], data: st.DataObject
) -> None:
    facts = [Fact(s, severity, is_ok, at_ms) for at_ms, (s, severity, is_ok) in enumerate(seen)]
    shuffled = data.draw(st.permutations(facts))
    known: dict[str, Condition] = {}
    told: list[Transition] = []
    now_ms = 0
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        told += decided(known, list(shuffled[:size]), now_ms)
        shuffled = shuffled[size:]
        now_ms += data.draw(st.sampled_from([15_000, HOLD, SETTLE]))
    for _ in range(3):
        now_ms += SETTLE
        told += decided(known, facts, now_ms)

    assert decided(known, facts, now_ms) == ()
    heard = [(one.key, sink) for one in told for sink in one.sinks]
    assert len(set(heard)) == len(heard)
    opened = {one.incident.id for one in told if one.change == "opened"}
    resolved = {one.incident.id for one in told if one.change == "resolved"}
    assert resolved <= opened
    open_now = {c.open_incident.id for c in known.values() if c.open_incident}
    for condition in known.values():
        assert condition.is_ok == (condition.open_incident is None)
        incident = condition.open_incident
        if incident is None:
            continue
        root = known[root_of(known, condition)].open_incident
        assert root is not None
        assert root.is_told
        assert root.id in opened
        assert not root.under
        # Whoever would be told of a follower is told of what it is folded under.
        assert set(incident.sinks) <= set(root.sinks) or incident.is_told
    # What was told and is over was said to be over.
    assert opened - resolved == {one for one in opened if one in open_now}


@given(st.lists(st.tuples(subjects, severities), max_size=12, unique=True), st.data())
def test_what_fails_in_one_look_is_told_the_same_in_whatever_order_it_was_seen(
    failing: list[tuple[Subject, Severity]], data: st.DataObject
) -> None:
    def incidents(order: list[tuple[Subject, Severity]]) -> set[tuple[str, str]]:
        known: dict[str, Condition] = {}
        facts = [
            Fact(one, severity, is_ok=False, at_ms=at) for at, (one, severity) in enumerate(order)
        ]
        told = decided(known, facts, 0)
        told += decided(known, [], HOLD)
        return {(one.subject.key, one.severity) for one in told}

    assert incidents(failing) == incidents(data.draw(st.permutations(failing)))


@given(st.data())
def test_a_follower_read_first_is_folded_as_if_it_had_been_read_last(data: st.DataObject) -> None:
    cause = Fact(Subject("check", "events/s", "rows", "2020-01-01"), "error", is_ok=False, at_ms=5)
    below = st.builds(
        lambda name, aspect, day: Subject("check", name, aspect, f"2020-01-0{day}"),
        st.sampled_from(["features/v"]),
        checks,
        st.integers(1, 5),
    )
    followers = [
        Fact(one, data.draw(severities), is_ok=False, at_ms=at)
        for at, one in enumerate(data.draw(st.lists(below, max_size=4, unique=True)))
    ]
    order = data.draw(st.permutations([cause, *followers]))
    known: dict[str, Condition] = {}
    told = [t for n, fact in enumerate(order) for t in decided(known, [fact], n * 15_000)]
    told += decided(known, [], HOLD * 3)
    assert {one.subject for one in told} == {cause.subject}
    everybody = {sink for one in told for sink in one.sinks}
    assert everybody == {cause.subject.name, *(one.subject.name for one in followers)}
    assert replace(told[0], followers=()).change == "opened"
