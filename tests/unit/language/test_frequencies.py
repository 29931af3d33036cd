"""The most frequent values of ranges, with rows that arrived late, against brute force."""

from collections import Counter

import numpy as np
import pytest

from millrace.kernel import frequencies
from millrace.kernel.axis import Stamped
from millrace.kernel.frequencies import Frequencies
from millrace.kernel.ranges import Ranges
from millrace.kernel.visibility import Visibility


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("cells", [1 << 20, 50])
@pytest.mark.parametrize("rows", [60, 900])
def test_they_are_those_that_counting_gives(
    seed: int, cells: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frequencies, "_CELLS", cells)
    random = np.random.default_rng(seed)
    events = Stamped(np.zeros(rows, np.int64), np.sort(random.integers(0, rows, rows)))
    ingest_ms = events.instants_ms + random.choice([0, 0, 0, 1, 20], rows)
    valid = random.random(rows) < 0.8
    values = random.integers(-5, random.choice([0, 5, 60]), rows)
    at_ms = np.sort(random.integers(-1, rows + 10, rows))
    queries = Stamped(np.zeros(rows, np.int64), at_ms)
    length = random.choice([3, 50, 2 * rows])
    end = np.searchsorted(events.instants_ms, at_ms)
    begin = np.searchsorted(events.instants_ms, at_ms - length)
    prefix_end, stragglers = Visibility(events, ingest_ms, queries, 1).split(begin, end)
    held = [
        Counter(int(values[r]) for r in range(b, e) if valid[r] and ingest_ms[r] < q)
        for b, e, q in zip(begin, end, at_ms, strict=True)
    ]
    asked = np.array([i for i, one in enumerate(held) if one and i % 7], np.intp)
    some = Frequencies(values, valid)
    for most in (1, 3, 100):
        found = some.most_frequent(Ranges(begin, prefix_end, stragglers), asked, most)
        lists = np.split(some.distinct[found.rows], np.cumsum(found.lengths))
        assert lists.pop().size == 0
        for i, (got, one) in enumerate(zip(lists, held, strict=True)):
            ranked = sorted((-count, value) for value, count in one.items())[:most]
            assert got.tolist() == ([value for _, value in ranked] if i in asked else [])
