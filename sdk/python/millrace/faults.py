"""Gathering faults, so that reading and checking never stop at the first."""

from collections.abc import Iterator, Sequence

from millrace.errors import Fault
from millrace.spec import Location


class _Unreadable(str):
    """The value of a field whose fault is already reported."""

    __slots__ = ()


UNREADABLE: str = _Unreadable()
"""Stands in a spec for a field that a reader could not read and has reported; see ``is_read``."""


def is_read(value: str | None) -> bool:
    """Return False for what a reader has already reported, so that it is not reported twice."""
    return not isinstance(value, _Unreadable)


class FaultList:
    """Faults in the order found; a fault that is found twice is kept once."""

    def __init__(self) -> None:
        self._found: dict[Fault, None] = {}

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, where: Location | str, what: str, fix: str = "") -> None:
        """Note a fault; a location becomes ``file:line``."""
        self._found.setdefault(Fault(what, str(where), fix))


def by_place(faults: Sequence[Fault]) -> list[Fault]:
    """Sort faults by file and line; those of one line keep their order."""

    def place(fault: Fault) -> tuple[str, int]:
        file, _, line = fault.where.rpartition(":")
        return (file, int(line)) if line.isdigit() else (fault.where, 0)

    return sorted(faults, key=place)
