"""The first and the last few rows of ranges, with rows that arrived late, against brute force."""

import numpy as np
import pytest

from millrace.kernel.axis import Stamped
from millrace.kernel.ranges import Ranges, ValidRows
from millrace.kernel.visibility import Visibility

ROWS, QUERIES = 40, 60


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [1, 3, 100])
def test_they_are_those_that_sorting_gives(seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    events = Stamped(np.zeros(ROWS, np.int64), np.sort(random.integers(0, 50, ROWS)))
    ingest_ms = events.instants_ms + random.choice([0, 0, 0, 1, 20], ROWS)
    valid = random.random(ROWS) < 0.7
    at_ms = np.sort(random.integers(-1, 60, QUERIES))
    queries = Stamped(np.zeros(QUERIES, np.int64), at_ms)
    end = np.searchsorted(events.instants_ms, at_ms)
    begin = np.searchsorted(events.instants_ms, at_ms - random.integers(1, 40))
    prefix_end, stragglers = Visibility(events, ingest_ms, queries, 1).split(begin, end)
    within = Ranges(begin, prefix_end, stragglers)
    rows = ValidRows(valid)
    firsts, lasts = rows.firsts(within, most), rows.lasts(within, most)
    wanted = [
        [r for r in range(b, e) if valid[r] and ingest_ms[r] < q]
        for b, e, q in zip(begin, end, at_ms, strict=True)
    ]
    assert np.split(firsts.rows, np.cumsum(firsts.lengths))[-1].size == 0
    for found, want in zip(np.split(firsts.rows, np.cumsum(firsts.lengths)), wanted, strict=False):
        assert found.tolist() == want[:most]
    for found, want in zip(np.split(lasts.rows, np.cumsum(lasts.lengths)), wanted, strict=False):
        assert found.tolist() == want[::-1][:most]
    assert any(want and stragglers is not None for want in wanted)
