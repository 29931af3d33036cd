"""The profile of one column while it is being added up."""

from collections import Counter
from collections.abc import Mapping
from heapq import nlargest
from typing import Any

import numpy as np

from millrace.quality.profile import MOST_TAIL, MOST_TOP, ColumnProfile, Kind
from millrace.quality.sketches import (
    Numbers,
    Registers,
    add_to_kll,
    hll_estimate,
    hll_registers,
    new_kll,
    read_kll,
    tails_of,
)
from millrace.quality.values import DayValues

_MOST_COUNTED = 8_192
"""More different values than this are counted no further: the rare half is dropped."""


class ColumnPartial:
    """Everything known of one column of one day so far; two of them add up."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rows = 0
        self.values = 0
        self.mean = 0.0
        self.m2 = 0.0
        self.minimum = np.inf
        self.maximum = -np.inf
        self.smallest: Numbers = np.empty(0)
        self.largest: Numbers = np.empty(0)
        self.counts: Counter[str] = Counter()
        self.is_counted = True
        self.registers: Registers | None = None
        self.kll: Any = None

    def add(self, values: DayValues) -> None:
        """Add some values of the day."""
        self.rows += values.rows
        self._add_counts(values.counts, is_whole=values.is_counted_whole)
        if values.values:
            self._add_registers(hll_registers(values.hashes))
        numbers = values.numbers
        if not len(numbers):
            self.values += values.values
            return
        mean = float(numbers.mean())
        steps = numbers - mean
        # A dot product would wake the threads of BLAS, which then spin beside Spark's.
        self._add_moments(len(numbers), mean, float(np.square(steps, out=steps).sum()))
        self.minimum = min(self.minimum, float(numbers.min()))
        self.maximum = max(self.maximum, float(numbers.max()))
        if self.kind == "number":
            self._add_tails(*tails_of(numbers, MOST_TAIL))
        if self.kind in {"number", "text"}:
            if self.kll is None:
                self.kll = new_kll()
            add_to_kll(self.kll, numbers)

    def merge(self, other: "ColumnPartial") -> None:
        """Add what another one knows of other rows of the same day."""
        self.rows += other.rows
        self._add_counts(other.counts, is_whole=other.is_counted)
        if other.registers is not None:
            self._add_registers(other.registers)
        if other.values and np.isfinite(other.minimum):
            self._add_moments(other.values, other.mean, other.m2)
        else:
            self.values += other.values
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self._add_tails(other.smallest, other.largest)
        if other.kll is not None:
            if self.kll is None:
                self.kll = new_kll()
            self.kll.merge(other.kll)

    def _add_counts(self, counts: Mapping[str, int] | None, *, is_whole: bool) -> None:
        self.is_counted = self.is_counted and counts is not None and is_whole
        self.counts.update(counts or {})
        if len(self.counts) > _MOST_COUNTED:
            self.counts = Counter(dict(self.counts.most_common(_MOST_COUNTED // 2)))
            self.is_counted = False

    def _add_registers(self, registers: Registers) -> None:
        if self.registers is None:
            self.registers = registers
        else:
            self.registers = np.maximum(self.registers, registers)

    def _add_moments(self, values: int, mean: float, m2: float) -> None:
        # Chan, Golub, LeVeque: pairwise update of mean and squared deviations.
        total = self.values + values
        step = mean - self.mean
        self.m2 += m2 + step * step * self.values * values / total
        self.mean += step * values / total
        self.values = total

    def _add_tails(self, low: Numbers, high: Numbers) -> None:
        if len(self.smallest):
            low, _ = tails_of(np.concatenate([self.smallest, low]), MOST_TAIL)
            _, high = tails_of(np.concatenate([self.largest, high]), MOST_TAIL)
        self.smallest, self.largest = low, high

    def profile(self, column: str) -> ColumnProfile:
        """Return the finished profile."""
        has_numbers = self.values > 0 and bool(np.isfinite(self.minimum))
        # Numbers are counted only while they are few; of texts the most frequent always tell.
        is_listed = self.is_counted or self.kind == "text"
        top = self._most_frequent() if is_listed else []
        return ColumnProfile(
            column=column,
            kind=self.kind,
            rows=self.rows,
            nulls=self.rows - self.values,
            distinct=0.0 if self.registers is None else hll_estimate(self.registers),
            minimum=self.minimum if has_numbers else None,
            maximum=self.maximum if has_numbers else None,
            mean=self.mean if has_numbers else None,
            m2=self.m2 if has_numbers else None,
            smallest=tuple(self.smallest.tolist()),
            largest=tuple(self.largest.tolist()),
            top=tuple(top),
            top_is_complete=self.is_counted and len(self.counts) <= MOST_TOP and bool(top),
            kll=None if self.kll is None else bytes(self.kll.serialize()),
            hll=None if self.registers is None else self.registers.tobytes(),
        )

    def _most_frequent(self) -> list[tuple[str, int]]:
        least = min(nlargest(MOST_TOP, self.counts.values()), default=0)
        frequent = [item for item in self.counts.items() if item[1] >= least]
        return sorted(frequent, key=lambda item: (-item[1], item[0]))[:MOST_TOP]

    def document(self) -> dict[str, Any]:
        """Return the state in plain values and arrays, for ``from_document``."""
        state = dict(vars(self))
        state["counts"] = dict(self.counts)
        state["kll"] = None if self.kll is None else bytes(self.kll.serialize())
        return state

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ColumnPartial":
        """Return what ``document`` was made of."""
        made = cls(document["kind"])
        vars(made).update(document)
        made.counts = Counter(document["counts"])
        made.kll = None if document["kll"] is None else read_kll(document["kll"])
        return made
