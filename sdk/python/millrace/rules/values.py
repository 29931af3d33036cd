"""Durations, dates and types out of their texts."""

import contextlib
import re
from datetime import date, datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from millrace.durations import DAY_MS, parse_duration
from millrace.errors import nearest
from millrace.faults import FaultList, is_read
from millrace.spec import Location
from millrace.types import KINDS, DataType, parse_type

MAX_DURATION_MS = 36_500 * DAY_MS

_OTHER_NAMES = {
    "bigint": "int64", "binary": "bytes", "datetime": "timestamp", "double": "float64",
    "float": "float64", "int": "int64", "integer": "int64", "long": "int64",
    "real": "float64", "str": "string", "text": "string", "varchar": "string",
}  # fmt: skip
"""Names of types elsewhere."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def duration_ms(
    text: str, name: str, where: Location, faults: FaultList, *, at_least_ms: int = 1
) -> int | None:
    """Return a duration in milliseconds; None with a fault if it is none or out of range."""
    if not is_read(text):
        return None
    try:
        parsed = parse_duration(text)
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        faults.add(where, f"{name}: {what}", fix)
        return None
    if parsed < at_least_ms:
        faults.add(where, f"{name} is {text}", f"{name} must be above 0")
        return None
    if parsed > MAX_DURATION_MS:
        faults.add(where, f"{name} is {text}, more than a hundred years", "36500d is the longest")
        return None
    return parsed


def optional_duration_ms(
    text: str | None, name: str, where: Location, faults: FaultList
) -> int | None:
    """Return a duration above 0 in milliseconds; None if there is no text."""
    return None if text is None else duration_ms(text, name, where, faults)


def day_date(text: str, name: str, where: Location, faults: FaultList) -> date | None:
    """Return a day written ``YYYY-MM-DD``; None with a fault if it is none."""
    if not is_read(text):
        return None
    day = parse_day(text)
    if day is None:
        faults.add(where, f"{name}: {text!r} is no day", "write YYYY-MM-DD: 2018-04-01")
    return day


def parse_day(value: object) -> date | None:
    """Return a day, or what one is written as, ``YYYY-MM-DD``; None for anything else."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    # Without the pattern, fromisoformat would take 20180401 and 2018-W14-1 as well.
    if isinstance(value, str) and _DATE.fullmatch(value) is not None:
        with contextlib.suppress(ValueError):
            return date.fromisoformat(value)
    return None


def data_type(text: str, of: str, where: Location, faults: FaultList) -> DataType | None:
    """Return a type of the language; None with a fault if the text names none."""
    if not is_read(text):
        return None
    try:
        return parse_type(text)
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        faults.add(where, f"{of}: {what}", _nearest_type(text, fix))
        return None


def _nearest_type(text: str, types: str) -> str:
    if text.startswith("decimal"):
        return "decimal(12,2), for one"
    if text.startswith("vector"):
        return "vector(8), for one"
    word = text.strip().lower()
    meant = _OTHER_NAMES.get(word) or next(iter(get_close_matches(word, KINDS, n=1)), None)
    return f"did you mean {meant!r}? {types}" if meant else types


def check_zone(name: str, where: Location, faults: FaultList) -> None:
    """Note a name that is no time zone, with the nearest."""
    # A folder of zones, such as Europe, is an OSError; a path out of the database a ValueError.
    with contextlib.suppress(KeyError, ValueError, OSError):
        ZoneInfo(name)
        return
    zones = sorted(available_timezones())
    close = nearest(name, zones)
    faults.add(
        where,
        f"timezone: {name[:80]!r} is no time zone",
        close if close.startswith("did") else "write an IANA name: Europe/Berlin",
    )
