"""What an answer costs in each of its forms, in process: CPU of 100 stored rows of ten features.

    python -m benchmarks.serving.forms

From the rows' bytes, as the store gives them, to the bytes of the answer; HTTP and the store are
not part of it. Rounds take turns, so that what else the machine does falls on all alike; the least
of each and the median go to ``results/forms.json``.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.serving.lookups import payments_view, random_tiles
from millrace.compile.serving import serving_plan
from millrace.published import PublishedVersion, PublishedView
from serving.catalog import Catalog, served_view
from serving.forms import COLUMNAR, FORMS, Form
from serving.rendering import KeyRenderer

RESULTS = Path(__file__).resolve().parent / "results" / "forms.json"
ROUNDS = 25
ANSWERS = 40
KEYS = 100
NOW_MS = 1_796_083_200_000


def main() -> int:
    """Print and write the microseconds of an answer in each form."""
    forms = {form.media_type: form for form in FORMS}
    for form in forms.values():
        answering(form)()  # what is loaded and kept by the first answer
    forms[f"{COLUMNAR}, options.ts false"] = forms[COLUMNAR].without_ts()
    measures = {name: answering(form) for name, form in forms.items()}
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            taken[name].append(measure())
    figures = {
        name: {"least_us": round(min(us), 1), "median_us": round(statistics.median(us), 1)}
        for name, us in taken.items()
    }
    text = json.dumps({"keys": KEYS, "features": 10, "rounds": ROUNDS, "forms": figures}, indent=2)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0


def answering(form: Form) -> Callable[[], float]:
    """Return what measures the microseconds of one answer in a form."""
    view = payments_view()
    document = json.loads(json.dumps(serving_plan(view)))
    version = PublishedVersion(
        "v1", view.fingerprint, document, "tiles", "payments", "group", "live", None, None, NOW_MS
    )
    published = PublishedView(view.name, ("customer",), "v1", (version,))
    catalog = Catalog({view.name: served_view(published)})
    plan = catalog.lookup_plan("customer", tuple((f.name, None) for f in view.features))
    (read,) = plan.reads
    online = read.served.online
    chance = random.Random(11)  # noqa: S311 - data of a benchmark
    tiles = (random_tiles(view, online, chance, NOW_MS) for _ in range(KEYS))
    rows = [online.rows.encode(online.merge(one, NOW_MS)) for one in tiles]
    keys = list(range(KEYS))
    renderer = KeyRenderer(plan, {})

    def measure() -> float:
        began = time.process_time()
        for _ in range(ANSWERS):
            instant = renderer.instant(NOW_MS + 1, NOW_MS)
            read_rows = [online.rows.read(row) for row in rows]
            form.of_rows(renderer, "customer", keys, read_rows, instant)
        return (time.process_time() - began) / ANSWERS * 1e6

    return measure


if __name__ == "__main__":
    sys.exit(main())
