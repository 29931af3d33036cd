"""What derived features cost an answer, in process: CPU of one stored row, with and without them.

    python -m benchmarks.serving.derived

The view of the lookups' benchmark, and the same with a ratio, a flag of two conditions and a
text derived of it. Rounds take turns, and the least of each counts, since the machine may be busy.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.serving.lookups import payments_view, random_tiles
from millrace.compile.serving import serving_plan
from millrace.expressions import AS_OF, parse_expression
from millrace.online.view import OnlineView
from millrace.plan import DerivedPlan, ViewPlan
from millrace.types import TIMESTAMP

ROUNDS = 15
ROWS = 50
ANSWERS = 2_000
NOW_MS = 1_764_072_000_000
DERIVED = {
    "share_1h": "payments_1h / NULLIF(payments_1d, 0)",
    "is_unusual": "COALESCE(amount_avg_1h > 3 * amount_avg_1d, FALSE) AND share_1h >= 0.5",
    "channel_at_night": "CASE WHEN HOUR(AS_OF()) < 6 THEN channel_last END",
}


def main() -> int:
    """Print the microseconds of an answer of each kind."""
    plain = payments_view()
    answers = {"ten aggregates": answering(plain), "and three derived": answering(deriving(plain))}
    least = dict.fromkeys(answers, float("inf"))
    for _ in range(ROUNDS):
        for name, answer in answers.items():
            least[name] = min(least[name], answer())
    sys.stdout.write("".join(f"{name}: {us:.1f} us\n" for name, us in least.items()))
    return 0


def deriving(view: ViewPlan) -> ViewPlan:
    """Return the view with what is derived of its features."""
    types = {f.name: f.type for f in view.features} | {AS_OF: TIMESTAMP}
    derived = []
    for name, text in DERIVED.items():
        derived.append(DerivedPlan(name, parse_expression(text, types)))
        types[name] = derived[-1].type
    return replace(
        view, derived=tuple(derived), order=tuple(name for name in types if name != AS_OF)
    )


def answering(view: ViewPlan) -> Callable[[], float]:
    """Return what measures the microseconds of one answer of all features over a stored row."""
    online = OnlineView.from_plan(json.loads(json.dumps(serving_plan(view))))
    rows = _rows(view, online)
    places = tuple(range(len(online.features)))

    def measure() -> float:
        began = time.process_time()
        for i in range(ANSWERS):
            row = online.rows.decode(rows[i % ROWS])
            online.at(NOW_MS + 1, NOW_MS, places).answer(row)
        return (time.process_time() - began) / ANSWERS * 1e6

    return measure


def _rows(view: ViewPlan, online: OnlineView) -> Sequence[bytes]:
    chance = random.Random(11)  # noqa: S311 - data of a benchmark
    tiles = (random_tiles(view, online, chance, NOW_MS) for _ in range(ROWS))
    return [online.rows.encode(online.merge(one, NOW_MS)) for one in tiles]


if __name__ == "__main__":
    sys.exit(main())
