"""How many different values ranges of rows hold, many ranges at once.

A value counts where it occurs first in a range: where its previous occurrence lies before the
range. So the number of different values of ``[begin, end)`` is that of its rows whose previous
occurrence is before ``begin``.

Source: Muthukrishnan, "Efficient algorithms for document retrieval problems" (2002).
"""

import numpy as np

from millrace.kernel.axis import Bools, Int64s, Positions
from millrace.kernel.ranges import Ranges, SomeRows
from millrace.kernel.wavelet import WaveletMatrix


class Occurrences:
    """A column whose different values are counted.

    Args:
        codes: a number for each row, equal where values are.
        valid: rows that count; None: all.
    """

    def __init__(self, codes: Int64s, valid: Bools | None) -> None:
        self._rows = SomeRows(valid, len(codes))
        held = self._rows.take(codes)
        self._order = np.argsort(held, kind="stable")
        is_new = np.ones(len(held), np.bool_)
        is_new[1:] = held[self._order[1:]] != held[self._order[:-1]]
        self._ranks = np.empty(len(held), np.int64)
        self._ranks[self._order] = np.cumsum(is_new) - 1
        previous = np.zeros(len(held), np.int64)  # counted from 1; 0: there is none
        previous[self._order[1:]] = np.where(is_new[1:], 0, self._order[:-1] + 1)
        self._previous = WaveletMatrix(previous)

    def counts(self, ranges: Ranges) -> Int64s:
        """Count the different values of each range."""
        begin, end = self._rows.places(ranges.begin), self._rows.places(ranges.end)
        counts = self._previous.below(begin, end, begin + 1)
        if ranges.stragglers is not None:
            for queries, rows in ranges.stragglers.visits():
                self._add_late(counts, queries, rows, begin, end)
        return counts

    def _add_late(
        self,
        counts: Int64s,
        queries: Positions,
        rows: Positions,
        begin: Positions,
        end: Positions,
    ) -> None:
        """Add the values of stragglers that their query's range has not, each once."""
        queries, places = self._rows.among(queries, rows)
        if not len(queries):
            return
        ranks, stride = self._ranks[places], len(self._ranks) + 1
        line = self._ranks[self._order] * stride + self._order
        before = np.searchsorted(line, ranks * stride + end[queries])
        last = line[np.maximum(before - 1, 0)]
        is_there = (before > 0) & (last >= ranks * stride + begin[queries])
        new = np.unique(queries[~is_there] * stride + ranks[~is_there]) // stride
        counts += np.bincount(new, minlength=len(counts))
