"""Sessions: the newest run of each query's events in which neighbours lie close together.

Where a query sees every event before a place, the run that ends there was found once, for all
queries. Beyond it a query walks back over what it sees, all queries in step, and no further than a
gap.
"""

import numpy as np

from millrace.kernel.axis import Int64s, Positions, Stamped
from millrace.kernel.visibility import Visibility


def session_begin(
    events: Stamped,
    gap_ms: int,
    query_ms: Int64s,
    begin: Positions,
    end: Positions,
    known: Visibility | None,
) -> Positions:
    """Return the first row of each query's newest run; the end of its rows if it has none.

    Args:
        events: sorted by (key, event time).
        gap_ms: neighbours in a run, and its newest and the query, lie less than this apart.
        query_ms: the queries.
        begin: first row that may count for each; of its key.
        end: the one behind the last, of its key.
        known: what queries see; None: everything.
    """
    instants, first_of_run = events.instants_ms, _runs(events, gap_ms)
    found, reached_ms, place = end.copy(), query_ms.copy(), end - 1
    walking = np.flatnonzero(place >= begin)
    while walking.size:
        # Whatever is older lies further away, so a walk ends at the first row that is too far.
        walking = walking[reached_ms[walking] - instants[place[walking]] < gap_ms]
        if known is None:
            found[walking] = np.maximum(first_of_run[place[walking]], begin[walking])
            break
        is_whole = place[walking] < known.seen_prefix[walking]
        done, walking = walking[is_whole], walking[~is_whole]
        found[done] = np.maximum(first_of_run[place[done]], begin[done])
        seen = walking[known.sees(place[walking], walking)]
        found[seen], reached_ms[seen] = place[seen], instants[place[seen]]
        place[walking] -= 1
        walking = walking[place[walking] >= begin[walking]]
    return found


def _runs(events: Stamped, gap_ms: int) -> Positions:
    """Return the first row of the run that each row is in."""
    is_first = np.ones(len(events.codes), np.bool_)
    is_first[1:] = np.diff(events.instants_ms) >= gap_ms
    is_first[1:] |= np.diff(events.codes) != 0
    rows = np.arange(len(is_first))
    return np.maximum.accumulate(np.where(is_first, rows, 0))
