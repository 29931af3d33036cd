"""Every served value of every entity against the oracle, and the archive's books besides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable

from tests.support.live.oracle import OracleView, SourceRules, TopicOracle
from tests.support.live.running_stack import RunningStack, until
from tests.support.live.topic_records import read_records
from tests.support.live.views import VIEWS, instant_ms, is_right

UNKNOWN: dict[str, list[Any]] = {
    "live_spend": [777_777_777, -777],
    "live_till": ["nobody", "shop-99999"],
    "live_pulse": ["stone"],
}
_SHOWN = 12
_ASKED_AT_ONCE = 64  # entities, of some fifty features each: an answer takes no timeout


@dataclass(frozen=True)
class Proof:
    """What comparing has shown: how many values, and those that are wrong, in words."""

    values: int
    wrong: tuple[str, ...]
    as_of_ms: int


def compare(stack: RunningStack, oracle: TopicOracle, name: str, **named: str) -> Proof | None:
    """Look up every entity of a view and compare all of the answer; None if nobody answered."""
    entity, view = VIEWS[name]
    keys = [*oracle.keys(view), *UNKNOWN[name]]
    proofs = []
    for first in range(0, len(keys), _ASKED_AT_ONCE):
        asked = keys[first : first + _ASKED_AT_ONCE]
        answer = stack.try_lookup(entity, asked, view.names, **named)
        if answer is None:
            return None
        proofs.append(compared(oracle, view, asked, answer))
    return Proof(
        sum(proof.values for proof in proofs),
        tuple(wrong for proof in proofs for wrong in proof.wrong),
        max(proof.as_of_ms for proof in proofs),
    )


def compared(oracle: TopicOracle, view: OracleView, keys: Sequence[Any], answer: Any) -> Proof:
    """Compare an answer: values, times, statuses, and the order of the keys."""
    as_of_ms = instant_ms(answer["as_of"])
    wrong: list[str] = []
    assert [result["key"] for result in answer["results"]] == list(keys)
    for key, result in zip(keys, answer["results"], strict=True):
        expected = oracle.expected(view, key, as_of_ms)
        is_known = oracle.events_of(view, key) > 0
        for feature_name, one in expected.items():
            served = result["features"][feature_name]
            ts_ms = None if served["ts"] is None else instant_ms(served["ts"])
            status = one.status if is_known else "NOT_FOUND"
            found = (ts_ms, served["status"])
            is_same = is_right(view.features.get(feature_name), served["value"], one.value)
            if not is_same or found != (one.newest_ms, status):
                wrong.append(
                    f"{feature_name} of {key!r} at {as_of_ms}: served {served['value']!r} "
                    f"ts {ts_ms} {served['status']}, should be {one.value!r} "
                    f"ts {one.newest_ms} {status}"
                )
    return Proof(len(keys) * len(view.names), tuple(wrong), as_of_ms)


def prove_values(
    stack: RunningStack, oracle: TopicOracle, names: Sequence[str], deadline_s: float = 180
) -> int:
    """Wait until every value of every entity is right, then look twice more; returns how many."""
    total = 0
    for name in names:
        last: list[Proof] = []

        def is_proven(name: str = name, last: list[Proof] = last) -> bool:
            found = compare(stack, oracle, name)
            last[:] = [found] if found is not None else last
            return found is not None and not found.wrong

        try:
            until(is_proven, f"{name} is right", deadline_s)
        except AssertionError as error:
            wrong = last[0].wrong if last else ("nobody answered",)
            shown = "\n".join(wrong[:_SHOWN])
            raise AssertionError(f"{error}; {len(wrong)} values are wrong:\n{shown}") from None
        for _ in range(2):
            again = compare(stack, oracle, name)
            assert again is not None
            assert again.wrong == ()
            total += again.values
    return total


def prove_counts(
    stack: RunningStack, topic: str, source: str, rules: SourceRules, deadline_s: float = 180
) -> TopicOracle:
    """Hold the archive's books, tables and dead-letter topic against the topic itself."""
    records = read_records(stack.bootstrap, topic)
    oracle = TopicOracle(rules, records)
    books = oracle.books
    told = until(
        lambda: _counts_at(stack, source, len(records)), "the archive has read all", deadline_s
    )
    assert told["events"] + told["duplicates"] + sum(told["dead_letters"].values()) == len(records)
    assert told["dead_letters"] == books.dead_letters
    assert (told["events"], told["duplicates"]) == (books.events, books.duplicates)
    lake = stack.home / "lake"
    events = DeltaTable(str(lake / "events" / source)).to_pyarrow_table(columns=["_event_ms"])
    assert events.num_rows == books.events
    _prove_dead_letters(stack, topic, source, oracle, {(r.partition, r.offset): r for r in records})
    return oracle


def _counts_at(stack: RunningStack, source: str, records: int) -> dict[str, Any] | None:
    told: dict[str, Any] = stack.streams()["sources"][source]
    counted = told["events"] + told["duplicates"] + sum(told["dead_letters"].values())
    return told if told["lag_events"] == 0 and counted >= records else None


def _prove_dead_letters(
    stack: RunningStack, topic: str, source: str, oracle: TopicOracle, records: dict[Any, Any]
) -> None:
    """Every refused event is in the table and in the topic, with its bytes; nothing else is."""
    table = DeltaTable(str(stack.home / "lake" / "dead_letters" / source)).to_pyarrow_table()
    assert table.num_rows == len(oracle.books.dead)
    sent: dict[tuple[int, int], tuple[str, bytes | None]] = {}
    for dead_letter in read_records(stack.bootstrap, f"{topic}.dlq"):
        headers = {name: value.decode() for name, value in dead_letter.headers}
        place = int(headers["partition"]), int(headers["offset"])
        assert dead_letter.key == f"{place[0]}:{place[1]}".encode()
        assert int(headers["timestamp_ms"]) == records[place].timestamp_ms
        # A dead letter may come twice after a crash; its key says that it is the same.
        assert sent.setdefault(place, (headers["reason"], dead_letter.value)) == (
            headers["reason"],
            dead_letter.value,
        )
    expected = {place: (why, records[place].value) for place, why in oracle.books.dead.items()}
    assert sent == expected
