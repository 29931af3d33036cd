"""What is known of one day of one table: small, storable, and enough to judge the day by.

A profile is made in one pass (``millrace.quality.partial``), kept as rows of a ``profiles`` table
(one for the table, one for each column), and judged against the profiles of earlier days
(``millrace.quality.judge``). Nothing here opens anything.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Literal

import numpy as np

from millrace.errors import DataError
from millrace.names import profiles_table
from millrace.quality.sketches import Numbers, kept_kll, mode_share

Kind = Literal["number", "text", "flag", "instant", "other"]

MOST_TOP = 50
"""At most this many of the most frequent values are kept."""

_RANKS = tuple(i / 40 for i in range(41))

MOST_TAIL = 64
"""At most this many of the smallest and of the largest values are kept."""


@dataclass(frozen=True)
class ColumnProfile:
    """One column of one day.

    Attributes:
        kind: ``number`` (integers, decimals, doubles), ``text``, ``flag`` (booleans), ``instant``
            (timestamps and dates, as epoch milliseconds) or ``other`` (only counted).
        rows: rows of the day, nulls among them.
        nulls: null values; non-finite doubles are null.
        distinct: number of different values, estimated from ``hll`` (1.6 % standard error).
        minimum, maximum, mean, m2: of the numbers; of the *length* of texts in characters; of
            instants in epoch milliseconds; of flags as 0 and 1. ``m2`` is the sum of squared
            deviations from the mean. None without any value.
        smallest, largest: the extreme values themselves, exact, at most 64 of each, ascending;
            empty for other kinds than ``number``.
        top: the most frequent values as text with their counts, at most 50, most frequent first;
            for texts, flags, and integers of few values.
        top_is_complete: True if ``top`` holds every value of the day.
        kll: serialised ``kll_doubles_sketch`` of Apache DataSketches (k = 200) of what ``mean`` is
            of; None for instants, or without any value.
        hll: HyperLogLog registers of the values (``millrace.quality.sketches``).
    """

    column: str
    kind: Kind
    rows: int
    nulls: int
    distinct: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    m2: float | None = None
    smallest: tuple[float, ...] = ()
    largest: tuple[float, ...] = ()
    top: tuple[tuple[str, int], ...] = ()
    top_is_complete: bool = False
    kll: bytes | None = field(default=None, repr=False)
    hll: bytes | None = field(default=None, repr=False)

    @cached_property
    def values(self) -> int:
        """Values that are not null."""
        return self.rows - self.nulls

    @cached_property
    def null_rate(self) -> float:
        """Share of nulls; 0 without rows."""
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def variance(self) -> float | None:
        """Population variance; None without any value."""
        return None if self.m2 is None or not self.values else self.m2 / self.values

    @cached_property
    def counts(self) -> dict[str, int]:
        """``top`` as a dictionary."""
        return dict(self.top)

    @cached_property
    def top_share(self) -> float:
        """Share of the most frequent value; within 2.5 % for numbers of many values."""
        if self.top:
            return self.top[0][1] / self.values
        if self.kind != "number" or not self.values:
            return 1.0 / max(1, self.values)
        return mode_share(self.grid.tolist(), _RANKS)

    @cached_property
    def grid(self) -> Numbers:
        """Forty-one quantiles, from the smallest to the largest; empty without values."""
        return np.array(self.quantiles(_RANKS))

    def quantiles(self, ranks: Iterable[float]) -> tuple[float, ...]:
        """Return the values at ranks between 0 and 1 (rank error 1.3 %); empty without values.

        Raises:
            SetupError: the extra ``quality`` is not installed.
        """
        if self.kll is None:
            return ()
        return tuple(kept_kll(self.kll).get_quantiles(list(ranks)))


@dataclass(frozen=True)
class DayProfile:
    """One day of one table.

    Attributes:
        table: the table's name under the lake: ``events/card_transactions``,
            ``features/customer_spend/v1``.
        day: UTC day.
        rows: rows of the day; a day without rows has a profile too, with no columns.
        duplicates: rows whose identity another row of the day has already; exact up to 131,072
            different identities a day, an estimate beyond.
        hours: rows by UTC hour of the event time, 24 counts.
        first_ms, last_ms: the earliest and the latest event time, epoch milliseconds; None
            without rows.
        columns: by name, in declared order.
        counts: what else the build counted for the day: ``null_keys``, ``dead_letters``. A rule of
            a type that is missing here comes out ``unknown``.
    """

    table: str
    day: date
    rows: int
    duplicates: int = 0
    hours: tuple[int, ...] = (0,) * 24
    first_ms: int | None = None
    last_ms: int | None = None
    columns: Mapping[str, ColumnProfile] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the ``profiles`` table: the table's own first, then one per column.

        Every row has all the keys of ``ROW_TYPES``; ``column`` is None in the table's own row.
        """
        own = {
            "rows": self.rows,
            "duplicates": self.duplicates,
            "hours": list(self.hours),
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "counts": json.dumps(dict(self.counts), sort_keys=True),
        }
        return [
            {**_NO_ROW, "event_date": self.day, "position": position, **found}
            for position, found in enumerate([own, *map(_column_row, self.columns.values())])
        ]

    @classmethod
    def from_rows(cls, table: str, rows: Iterable[Mapping[str, Any]]) -> "DayProfile":
        """Return the profile that ``as_rows`` made, the rows in any order.

        Raises:
            DataError: the table's own row is missing.
        """
        ordered = sorted(rows, key=lambda row: int(row["position"]))
        if not ordered or ordered[0]["column"] is not None:
            raise DataError(
                "a profile has no row for the table itself",
                where=profiles_table(table),
                fix="build the day again; its profile is replaced",
            )
        own = ordered[0]
        return cls(
            table=table,
            day=own["event_date"],
            rows=own["rows"],
            duplicates=own["duplicates"],
            hours=tuple(own["hours"]),
            first_ms=own["first_ms"],
            last_ms=own["last_ms"],
            columns={row["column"]: _row_column(row) for row in ordered[1:]},
            counts=json.loads(own["counts"]),
        )


ROW_TYPES: Mapping[str, str] = {
    "event_date": "date",
    "position": "int32",
    "column": "string",
    "kind": "string",
    "rows": "int64",
    "nulls": "int64",
    "duplicates": "int64",
    "distinct": "float64",
    "minimum": "float64",
    "maximum": "float64",
    "mean": "float64",
    "m2": "float64",
    "first_ms": "int64",
    "last_ms": "int64",
    "hours": "list<int64>",
    "smallest": "list<float64>",
    "largest": "list<float64>",
    "top_values": "list<string>",
    "top_counts": "list<int64>",
    "top_is_complete": "bool",
    "counts": "string",
    "kll": "bytes",
    "hll": "bytes",
}
"""Columns of the ``profiles`` table with their types (Arrow's names for lists), in order."""

_NO_ROW: Mapping[str, Any] = dict.fromkeys(ROW_TYPES)
_AS_THEY_ARE = (
    "column", "kind", "rows", "nulls", "distinct", "minimum", "maximum", "mean", "m2",
    "top_is_complete", "kll", "hll",
)  # fmt: skip


def _column_row(column: ColumnProfile) -> dict[str, Any]:
    return {
        **{name: getattr(column, name) for name in _AS_THEY_ARE},
        "smallest": list(column.smallest),
        "largest": list(column.largest),
        "top_values": [value for value, _ in column.top],
        "top_counts": [count for _, count in column.top],
    }


def _row_column(row: Mapping[str, Any]) -> ColumnProfile:
    return ColumnProfile(
        **{name: row[name] for name in _AS_THEY_ARE},
        smallest=tuple(row["smallest"]),
        largest=tuple(row["largest"]),
        top=tuple(zip(row["top_values"], row["top_counts"], strict=True)),
    )
