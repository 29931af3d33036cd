"""Hours, days, weeks and months of time zones: their bounds, and what declarations say of them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.calendar_windows import Tumbling
from millrace.errors import SpecError
from millrace.export import to_python, to_yaml
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.spec import Specs
from millrace.windows import read_window
from millrace.zones import BLOCK_MS, LONGEST_MS, calendar_hop_ms
from tests.support import calendar_oracle as calendar

ZONES = (
    "Europe/London", "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia", "Australia/Lord_Howe",
    "America/St_Johns", "Europe/Amsterdam", "America/Juneau", "Asia/Manila", "UTC",
)  # fmt: skip
YEAR_S = 31_556_952


def window(unit: str, zone: str, previous: int = 0) -> Tumbling:
    return Tumbling(unit, zone, previous, calendar_hop_ms(zone))


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def utc(*bounds_ms: int | None) -> list[str]:
    return [f"{datetime.fromtimestamp((at or 0) / 1000, UTC):%m-%d %H:%M}" for at in bounds_ms]


@given(
    unit=st.sampled_from(list(LONGEST_MS)),
    zone=st.sampled_from(ZONES),
    previous=st.integers(0, 3),
    # From the years of local mean time to those that the database has only a rule for.
    at_ms=st.integers(-130 * YEAR_S, 80 * YEAR_S).flatmap(
        lambda s: st.sampled_from([s * 1000, s * 1000 // 900_000 * 900_000, s * 1000 + 1])
    ),
)
def test_bounds_are_what_a_clock_shows(unit: str, zone: str, previous: int, at_ms: int) -> None:
    found = window(unit, zone, previous).bounds(at_ms)
    assert found == calendar.bounds(unit, zone, previous, calendar_hop_ms(zone), at_ms)


@pytest.mark.parametrize(
    ("unit", "zone", "previous", "at", "wanted"),
    [
        # 23 and 25 hours
        ("1d", "Europe/London", 1, "2018-03-26T00:00", ["03-25 00:00", "03-25 23:00"]),
        ("1d", "Europe/London", 1, "2018-10-29T00:00", ["10-27 23:00", "10-29 00:00"]),
        # the hour that there is twice is two
        ("1h", "Europe/London", 2, "2018-10-28T02:30", ["10-28 00:00", "10-28 01:00"]),
        ("1h", "Asia/Kathmandu", 0, "2018-01-01T12:00", ["01-01 06:15", "01-01 06:15"]),
        ("1d", "Asia/Kathmandu", 1, "2018-01-02T12:00", ["12-31 18:15", "01-01 18:15"]),
        # midnight is left out, or comes twice
        ("1d", "America/Sao_Paulo", 1, "2017-10-16T00:00", ["10-15 03:00", "10-16 02:00"]),
        ("1d", "America/Sao_Paulo", 1, "2018-02-18T00:00", ["02-17 02:00", "02-18 03:00"]),
        # a day that never was
        ("1d", "Pacific/Apia", 1, "2011-12-31T12:00", ["12-29 10:00", "12-30 10:00"]),
        # Monday, and months of 28 and 31 days
        ("1w", "Europe/London", 0, "2018-04-01T12:00", ["03-25 23:00", "04-01 11:00"]),
        ("1mo", "Europe/London", 1, "2018-03-15T00:00", ["02-01 00:00", "03-01 00:00"]),
        ("1mo", "Europe/London", 1, "2018-04-01T00:00", ["03-01 00:00", "03-31 23:00"]),
        ("1mo", "Europe/London", 0, "1965-07-14T12:00", ["06-30 23:00", "07-14 11:00"]),
    ],
)  # fmt: skip
def test_bounds_over_set_clocks(
    unit: str, zone: str, previous: int, at: str, wanted: list[str]
) -> None:
    assert utc(*window(unit, zone, previous).bounds(ms(at, zone))) == wanted


def test_a_clock_set_back_just_past_midnight_begins_no_second_day() -> None:
    # 2006-10-29 at 00:01 the clocks of St John's were set to 23:01 of the day before.
    first = ms("2006-10-29T02:30")
    for minutes in (0, 1, 30, 61, 90):
        start, _ = window("1d", "America/St_Johns").bounds(first + minutes * 60_000)
        assert start == first


def test_many_instants_at_once_are_those_of_each() -> None:
    some = window("1d", "Europe/London", 1)
    queries = [ms("2018-03-26T12:00"), -(2**60), 0, ms("2018-10-29T00:00"), 2**60, BLOCK_MS]
    starts, ends = some.bounds(np.array(queries))
    assert starts is not None
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == list(map(some.bounds, queries))


def test_hops_are_quarters_of_an_hour_only_where_clocks_need_them() -> None:
    hops = {zone: calendar_hop_ms(zone) // 60_000 for zone in ZONES}
    assert {zone for zone, hop in hops.items() if hop == 15} == {
        "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"
    }  # fmt: skip
    assert set(hops.values()) == {15, 60}


def test_a_document_is_read_back() -> None:
    some = window("1mo", "Europe/London", 2)
    assert read_window(some.document()) == some
    with pytest.raises(KeyError):
        read_window({"kind": "hopping", "hop_ms": 1})


def declared(*features: str) -> str:
    return "\n".join(
        [
            "version: millrace/v1",
            "sources:",
            "  - name: cards",
            "    columns: {id: int64, at: timestamp, amount: float64}",
            "    event_time: at",
            "    event_id: id",
            "    batch: {format: csv, path: x}",
            "entities: [{name: customer, join_key: id, type: int64}]",
            "feature_views:",
            "  - {name: spend, entity: customer, source: cards, start: 2018-01-01, features: [",
            *(f"      {{{feature}}}," for feature in features),
            "    ]}",
        ]
    )


def faults_of(window: str, *others: str) -> list[str]:
    text = declared(", ".join(["name: f", "aggregate: count", f"window: {window}", *others]))
    specs, faults = read_yaml(text, "a.yaml")
    if not faults:
        with pytest.raises(SpecError) as caught:
            resolve(specs)
        faults = list(caught.value.faults)
    return [f"{fault.where}: {fault.what}; {fault.fix}" for fault in faults]


def read(*features: str) -> Specs:
    specs, faults = read_yaml(declared(*features), "a.yaml")
    assert faults == []
    return specs


DAY = "{tumbling: 1d, timezone: Europe/Berlin, previous: 1}"


def test_a_declaration_becomes_a_window_and_is_exported_without_loss() -> None:
    specs = read(
        f"name: spend_yesterday, aggregate: sum, column: amount, window: {DAY}",
        'name: "n_{window}", aggregate: count, windows: [1h, {tumbling: 1w}, {tumbling: 1mo, previous: 2}]',
    )
    features = resolve(specs).view("spend").features
    assert {f.name: f.window for f in features if isinstance(f.window, Tumbling)} == {
        "spend_yesterday": Tumbling("1d", "Europe/Berlin", 1, 3_600_000),
        "n_tumbling_1w": Tumbling("1w", "UTC", 0, 3_600_000),
        "n_tumbling_1mo_previous_2": Tumbling("1mo", "UTC", 2, 3_600_000),
    }
    assert read_yaml(to_yaml(specs), "b.yaml") == (specs, [])
    assert read_python(to_python(specs), "b.py") == (specs, [])


def test_tiles_of_a_view_are_cut_where_every_window_needs_it() -> None:
    kathmandu = "{tumbling: 1d, timezone: Asia/Kathmandu}"
    a, b = "name: a, aggregate: count, window: 7d", f"name: b, aggregate: count, window: {DAY}"
    c = f"name: c, aggregate: count, window: {kathmandu}"
    hops = [
        resolve(read(*some)).view("spend").tile_hop_ms for some in ([a], [a, b], [a, b, c], [b])
    ]
    assert [hop // 60_000 for hop in hops] == [60, 60, 15, 60]


def test_each_field_of_the_window_is_part_of_what_a_view_means() -> None:
    windows = [
        DAY, DAY.replace("1d", "1w"), DAY.replace("Berlin", "London"), DAY.replace("1}", "0}"), "1d",
    ]  # fmt: skip
    views = [
        resolve(read(f"name: f, aggregate: count, window: {one}")).view("spend") for one in windows
    ]
    assert len({view.fingerprint for view in views}) == len(windows)


@pytest.mark.parametrize(
    ("window", "others", "what", "fix"),
    [
        ("{tumbling: 1d, timezone: Europe/Berln}", "", "'Europe/Berln' is no time zone", "did you mean 'Europe/Berlin'"),
        ("{tumbling: 2d}", "", "'2d' is no calendar unit", "write one of 1h, 1d, 1w, 1mo"),
        ("{tumbling: quarter}", "", "'quarter' is no calendar unit", "write one of 1h, 1d, 1w, 1mo"),
        ("{tumbling: 1d, previous: -1}", "", "previous: -1 is no number of whole units", "write 0 for the one"),
        ("{tumbling: 1d, previous: 1.5}", "", "previous: 1.5 is no number of whole units", "up to 1000"),
        ("{tumbling: 1d, previous: 12345678}", "", "previous: 12345678 is no number of whole units", "up to 1000"),
        ("{tumbling: 1d, previous: one}", "", "previous is the text 'one'", "plain number"),
        ("{tumbling: 1d, zone: UTC}", "", "a calendar window has no key 'zone'", "timezone"),
        ("{tumbled: 1d}", "", "window is a mapping of no kind of window", "write {tumbling: …}"),
        ("{tumbling: 1d}", "hop: 1h", "a calendar window takes no hop", "remove it"),
        ("{tumbling: 1d}", "offset: 1d", "a calendar window takes no offset", "previous says how far back"),
    ],
)  # fmt: skip
def test_a_faulty_window_is_reported_with_its_line_and_a_way_out(
    window: str, others: str, what: str, fix: str
) -> None:
    (fault,) = faults_of(window, *filter(None, [others]))
    assert fault.startswith("a.yaml:11: ")
    assert what in fault
    assert fix in fault


@pytest.mark.parametrize("previous", ["float('nan')", "float('inf')", "'1'", "True", "[1]"])
def test_what_is_no_number_of_units_is_said_in_python_too(previous: str) -> None:
    declared_once = to_python(read(f"name: n, aggregate: count, window: {DAY}"))
    specs, read_faults = read_python(
        declared_once.replace("previous=1", f"previous={previous}"), "a.py"
    )
    assert read_faults == []
    _, (fault,) = resolve_as_far_as_read(specs)
    assert "is no number of whole units before" in fault.what


def test_faults_of_a_window_are_reported_together() -> None:
    found = faults_of("{tumbling: 3d, timezone: Nowhere, previous: -2}", "hop: 1h")
    assert len(found) == 4
