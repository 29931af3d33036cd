"""Sessions: the newest run of events, what declarations say of it, and how far it is known."""

import random

import pytest

from millrace.errors import SpecError
from millrace.export import to_python, to_yaml
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.online.view import OnlineView
from millrace.resolve import resolve
from millrace.tiles import tile_columns
from millrace.windows import Session, Sliding, read_window
from tests import reference
from tests.support.kernel_cases import Query, kernel_values
from tests.support.online_cases import document_of, feature_of, packed_tiles, view_of
from tests.unit.language.test_calendar_windows import faults_of, read

MINUTE_MS = 60_000
HALF_HOUR = Session(30 * MINUTE_MS, 24 * 60 * MINUTE_MS, 5 * MINUTE_MS)
SESSION = "{session: 30m, max: 1d}"


def at(*minutes: float) -> list[reference.Event]:
    return [reference.Event("k", int(m * MINUTE_MS), int(m * MINUTE_MS), 1) for m in minutes]


def asked(
    gap_ms: int, max_ms: int, hop_ms: int, aggregate: str = "count_rows"
) -> reference.Feature:
    return reference.Feature(aggregate, max_ms, hop_ms, session_ms=gap_ms)


COUNT = asked(HALF_HOUR.gap_ms, HALF_HOUR.max_ms, HALF_HOUR.hop_ms)


@pytest.mark.parametrize(
    ("minutes", "q", "held"),
    [
        ([0, 20, 50, 75, 100], 110, 3),  # 20 and 50 lie the gap apart
        ([0, 20, 49.99, 75, 100], 110, 5),
        ([0, 20], 49.99, 2),
        ([0, 20], 50, 0),  # the newest lies the gap before the query
        ([0, 20], 20, 1),  # what happens at the query is out
        ([], 10, 0),
        ([5, 5, 5], 6, 3),
        ([20 * n for n in range(200)], 3983, 72 + 1),  # a day and a hop of a run that never ends
    ],
)
def test_what_a_session_holds_in_the_reference_the_kernel_and_the_store(
    minutes: list[float], q: float, held: int
) -> None:
    events, q_ms = at(*minutes), int(q * MINUTE_MS)
    assert reference.value(events, COUNT, "k", q_ms) == held
    assert kernel_values(events, [COUNT], [Query("k", q_ms)]) == [[held]]
    view = view_of([feature_of("n", "count", HALF_HOUR)])
    online = OnlineView.from_plan(document_of(view))
    before = [e for e in events if (e.event_ms or 0) < q_ms]
    row = online.merge(packed_tiles(view, before), q_ms)
    assert row.values[0] == held


def test_an_event_that_has_not_arrived_joins_nothing() -> None:
    # At 61 min the event of 30 min is unknown: 20 and 45 do not touch. At 66 it joins them.
    late = reference.Event("k", 30 * MINUTE_MS, 65 * MINUTE_MS, 1)
    events = [*at(10, 50), late]
    queries = [Query("k", m * MINUTE_MS) for m in (61, 65, 66)]
    wanted = [[1], [1], [3]]
    assert kernel_values(events, [COUNT], queries) == wanted
    assert [[reference.value(events, COUNT, "k", q.q_ms)] for q in queries] == wanted
    assert kernel_values(events, [COUNT], queries, hindsight=True) == [[3]] * 3


@pytest.mark.parametrize("hindsight", [False, True])
def test_many_late_events_of_many_keys_are_walked_exactly(*, hindsight: bool) -> None:
    chance = random.Random(7)
    events = [
        reference.Event(key, t, t + chance.choice([0, 0, 1, 4_000, 30_000]), 1)
        for key in "abc"
        for t in (chance.randrange(0, 200_000) for _ in range(150))
    ]
    features = [
        asked(gap, most, 1000, aggregate)
        for gap, most in ((1000, 20_000), (2500, 20_000), (9000, 50_000))
        for aggregate in ("count_rows", "time_since_first_rows")
    ]
    queries = [Query(chance.choice("abcd"), chance.randrange(0, 240_000)) for _ in range(300)]
    wanted = [
        [reference.value(events, f, q.key, q.q_ms, hindsight=hindsight) for f in features]
        for q in queries
    ]
    got = kernel_values(events, features, queries, hindsight=hindsight, max_rows_per_chunk=200)
    assert got == wanted
    assert len({row[2] for row in wanted}) > 5


def test_a_row_holds_until_the_session_is_over_or_its_tail_leaves() -> None:
    view = view_of([feature_of("n", "count", HALF_HOUR)])
    online = OnlineView.from_plan(document_of(view))
    tiles = packed_tiles(view, at(0, 20))
    assert online.merge(tiles, 21 * MINUTE_MS).valid_until_ms == 50 * MINUTE_MS
    assert online.merge(tiles, 50 * MINUTE_MS).valid_until_ms is None
    endless = packed_tiles(view, at(*range(0, 1500, 20)))
    assert online.merge(endless, 1481 * MINUTE_MS).valid_until_ms == 1485 * MINUTE_MS
    ((_, ts_ms, _),) = online.answer(online.merge(tiles, 49 * MINUTE_MS), 49 * MINUTE_MS, None)
    assert ts_ms == 20 * MINUTE_MS
    ((_, ts_ms, _),) = online.answer(online.merge(tiles, 50 * MINUTE_MS), 50 * MINUTE_MS, None)
    assert ts_ms is None


def test_tiles_know_their_first_event_only_where_a_session_asks() -> None:
    hour = feature_of("m", "count", Sliding(60 * MINUTE_MS, 5 * MINUTE_MS))
    with_one = view_of([hour, feature_of("n", "count", HALF_HOUR)])
    assert [c.name for c in tile_columns(with_one)] == ["rows", "first_ms", "last_event_ms"]
    assert [c.name for c in tile_columns(view_of([hour]))] == ["rows", "last_event_ms"]


def test_a_declaration_becomes_a_session_and_is_exported_without_loss() -> None:
    specs = read(f'name: "n_{{window}}", aggregate: count, windows: [{SESSION}, 1h]')
    features = resolve(specs).view("spend").features
    assert {f.name: f.window for f in features}["n_session_30m"] == HALF_HOUR
    assert resolve(specs).view("spend").tile_hop_ms == 5 * MINUTE_MS
    assert read_window(HALF_HOUR.document()) == HALF_HOUR
    assert read_yaml(to_yaml(specs), "b.yaml") == (specs, [])
    assert read_python(to_python(specs), "b.py") == (specs, [])


@pytest.mark.parametrize(
    ("window", "hop_ms"),
    [
        (SESSION, 300_000),
        ("{session: 4m, max: 1d}", 60_000),
        ("{session: 30m, max: 47m}", 60_000),
        ("{session: 59s, max: 1d}", 10_000),
        ("{session: 9s, max: 1h}", 1_000),
        ("{session: 30m, max: 3601s}", 1_000),
        ("{session: 1500ms, max: 1h}", 1_000),
    ],
)
def test_the_hop_is_the_largest_that_the_gap_and_max_allow(window: str, hop_ms: int) -> None:
    view = resolve(read(f"name: f, aggregate: count, window: {window}")).view("spend")
    assert view.features[0].window.hop_ms == view.tile_hop_ms == hop_ms


@pytest.mark.parametrize(
    ("window", "others", "what", "fix"),
    [
        ("{session: 30m}", "", "a session has no max", "add max"),
        ("{session: 30x, max: 1d}", "", "'30x' is not a duration", "90s"),
        ("{session: 500ms, max: 1d}", "", "shorter than a second", "write 1s or more"),
        ("{session: 30m, max: 10m}", "", "max 10m is shorter than the gap 30m", "max: 1d"),
        ("{session: 1m, max: 90500ms}", "", "not a whole number of seconds", "90s and 91s"),
        ("{session: 30m, max: 1d}", "hop: 1m", "a session takes no hop", "remove it"),
        ("{session: 30m, max: 1d}", "offset: 1d", "a session takes no offset", "remove it"),
        ("{session: 30m, max: 1d, timezone: UTC}", "", "a session has no key 'timezone'", ""),
    ],
)
def test_a_faulty_session_is_reported_with_a_way_out(
    window: str, others: str, what: str, fix: str
) -> None:
    (fault,) = faults_of(window, *filter(None, [others]))
    assert what in fault
    assert fix in fault


def test_gap_and_max_are_part_of_what_a_view_means() -> None:
    windows = [SESSION, "{session: 31m, max: 1d}", "{session: 30m, max: 2d}", "1d"]
    views = [
        resolve(read(f"name: f, aggregate: count, window: {w}")).view("spend") for w in windows
    ]
    assert len({view.fingerprint for view in views}) == 4
    with pytest.raises(SpecError):
        resolve(read(f"name: f, aggregate: count, window: {SESSION}, hop: 7m"))
