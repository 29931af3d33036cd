"""Whatever was seen, in whatever order and however often: each transition once, and none missing."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from alerts.conditions import Condition, Transition
from alerts.decision import decide
from alerts.facts import Fact, Subject

PARTITIONS = ("2020-01-01", "2020-01-02")
seen = st.lists(st.tuples(st.sampled_from(PARTITIONS), st.booleans()), max_size=30)


def facts_of(results: list[tuple[str, bool]]) -> list[Fact]:
    """Return one fact per result, a millisecond apart."""
    return [
        Fact(Subject("check", "events/x", "rows", partition), "error", is_ok, at_ms)
        for at_ms, (partition, is_ok) in enumerate(results)
    ]


def looks(batches: list[list[Fact]]) -> tuple[list[Transition], dict[str, Condition]]:
    """Decide batch after batch, as the watcher does."""
    known: dict[str, Condition] = {}
    told: list[Transition] = []
    for now_ms, batch in enumerate(batches):
        decision = decide(known, batch, now_ms=now_ms, renotify_ms=10**9, route=lambda *_: ("log",))
        known |= decision.changed
        told += decision.transitions
    return told, known


def counted(results: list[tuple[str, bool]], partition: str) -> list[tuple[str, int]]:
    """Return the changes of one partition, by walking through its results."""
    changes, is_bad = [], False
    for at_ms, (name, is_ok) in enumerate(results):
        if name == partition and is_ok == is_bad:
            changes.append(("resolved" if is_ok else "opened", at_ms))
            is_bad = not is_ok
    return changes


def of(told: list[Transition], partition: str) -> list[tuple[str, int]]:
    return [(one.change, one.at_ms) for one in told if one.subject.partition == partition]


@given(seen, st.data())
def test_in_order_the_transitions_are_those_one_counts(
    results: list[tuple[str, bool]], data: st.DataObject
) -> None:
    facts = facts_of(results)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(facts)), max_size=6)))
    edges = [0, *cuts, len(facts)]
    # Each look reads what is new, and something of what was read before.
    back = data.draw(st.integers(0, 5))
    told, _ = looks([facts[max(0, a - back) : b] for a, b in pairwise(edges)])
    for partition in PARTITIONS:
        assert of(told, partition) == counted(results, partition)
    assert len({one.key for one in told}) == len(told)


@given(seen, st.data())
def test_in_any_order_every_incident_is_opened_and_resolved_once_and_the_end_is_right(
    results: list[tuple[str, bool]], data: st.DataObject
) -> None:
    facts = facts_of(results)
    shuffled = data.draw(st.permutations(facts))
    told, known = looks([[fact] for fact in shuffled] + [facts])
    assert len({one.key for one in told}) == len(told)
    for partition in PARTITIONS:
        last = [is_ok for name, is_ok in results if name == partition][-1:]
        mine = [one for one in told if one.subject.partition == partition]
        opened = {one.incident.id for one in mine if one.change == "opened"}
        resolved = {one.incident.id for one in mine if one.change == "resolved"}
        assert resolved <= opened
        assert len(opened - resolved) == (last == [False])
        # Nobody is told of a failure that was none, and no failure goes untold.
        failed = {at for at, (name, is_ok) in enumerate(results) if name == partition and not is_ok}
        assert {one.at_ms for one in mine if one.change == "opened"} <= failed
        assert bool(opened) == bool(failed)
    open_now = {name for name, one in known.items() if one.open_incident is not None}
    assert all(not known[name].is_ok for name in open_now)
