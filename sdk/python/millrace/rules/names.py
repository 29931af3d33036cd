"""What may be called what."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from millrace.faults import FaultList, is_read
from millrace.spec import Location

MAX_NAME_LENGTH = 63

RESERVED_COLUMNS = frozenset({"event_date", "feature_version"})
"""Columns that the platform adds to tables of events and features."""

RESERVED_FEATURES = RESERVED_COLUMNS | {"event_time", "event_timestamp"}
"""Columns that stand beside the features in their table and in training sets."""

RESERVED_JOIN_KEYS = RESERVED_FEATURES | {"tile_start_ms", "rows", "last_event_ms"}
"""Columns that stand beside the join keys in any table."""

_RULE = "names are small letters, digits and _, a letter first"
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_TILE_COLUMN = re.compile(r"m\d+(_[a-z0-9]+)?")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]+")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class _Declared(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def where(self) -> Location: ...


_T = TypeVar("_T", bound=_Declared)


def check_name(
    name: str,
    of: str,
    where: Location,
    faults: FaultList,
    *,
    reserved: frozenset[str] = frozenset(),
) -> bool:
    """Note a fault if a name is no identifier, too long or reserved.

    Names become columns, folders, topics and metric labels, hence the narrow rule: small letters,
    digits and ``_``, a letter first, at most 63.

    Returns:
        True if the name can be used; False also where it was never read.
    """
    if not is_read(name):
        return False
    if _IDENTIFIER.fullmatch(name) is None:
        faults.add(where, f"{name[:80]!r} cannot name {of}", _suggestion(name))
    elif len(name) > MAX_NAME_LENGTH:
        faults.add(
            where,
            f"the name {name[:80]!r} of {of} has {len(name)} characters",
            f"at most {MAX_NAME_LENGTH} fit",
        )
    elif name in reserved:
        faults.add(
            where,
            f"{name!r} cannot name {of}: the platform has a column of that name",
            f"call it otherwise; taken are {', '.join(sorted(reserved))}",
        )
    else:
        return True
    return False


def _suggestion(name: str) -> str:
    better = valid_name(name)
    return f"{_RULE}: {better}" if better else _RULE


def valid_name(name: str) -> str:
    """Return the name that comes closest to one and is valid; empty if none does.

    >>> valid_name("CustomerID"), valid_name("Amount in EUR"), valid_name("1")
    ('customer_id', 'amount_in_eur', '')
    """
    better = _NOT_IN_NAMES.sub("_", _WORD_STARTS.sub("_", name).lower()).strip("_")
    return better if _IDENTIFIER.fullmatch(better) and len(better) <= MAX_NAME_LENGTH else ""


def check_column_name(name: str, where: Location, faults: FaultList) -> bool:
    """Note a fault if a source cannot have a column of this name; what files call it is free."""
    if is_read(name) and (_IDENTIFIER.fullmatch(name) is None or name in RESERVED_COLUMNS):
        is_taken = name in RESERVED_COLUMNS
        column = f"source_{name}" if is_taken else valid_name(name) or "its_name_here"
        why = "the platform has a column of that name" if is_taken else _RULE
        faults.add(
            where,
            f"{name[:80]!r} cannot name a column: {why}",
            f"keep it in the files and name it here: {column}: {{type: …, from: {name[:80]}}}",
        )
        return False
    return check_name(name, "a column", where, faults)


def check_join_key(name: str, where: Location, faults: FaultList) -> bool:
    """Note a fault if a column cannot be a join key."""
    if is_read(name) and _TILE_COLUMN.fullmatch(name):
        faults.add(
            where,
            f"{name!r} cannot name a join key: columns of tiles are called so",
            "names of the forms m0 and m0_count are taken",
        )
        return False
    return check_name(name, "a join key", where, faults, reserved=RESERVED_JOIN_KEYS)


def declared_once(
    declared: Iterable[_T],
    of: str,
    faults: FaultList,
    *,
    is_same: Callable[[_T, _T], bool] = lambda _a, _b: False,
) -> Mapping[str, _T]:
    """Return declarations by name, the first of each; a second one is a fault, as is a bad name.

    ``is_same`` says that a second declaration means the same as the first and is welcome, so that
    two files may both name what they build on.
    """
    first: dict[str, _T] = {}
    for one in declared:
        check_name(one.name, of, one.where.at("name"), faults)
        if not is_read(one.name):
            continue
        other = first.setdefault(one.name, one)
        if other is not one and not is_same(other, one):
            faults.add(
                one.where.at("name"),
                f"{of} named {one.name!r} is declared already at {other.where}",
                "rename one of the two, or remove it",
            )
    return first
