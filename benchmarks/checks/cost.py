"""What checks cost beside the backfill that they judge: real card payments, all days, one Spark.

    millrace up spark
    python -m benchmarks.checks.cost [LAST_DAY]

Builds events, tiles and features of two views into a fresh lake, then profiles and judges events
and features as the step does, Great Expectations among it; prints the seconds of each.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from checks.expectations import expectation_judge
from feature_assets.offline import LakeJudge
from resources.declarations import load_plan
from resources.offline import OfflineStore
from resources.reports import Days
from resources.settings import settings_from_env

VIEWS = """
version: millrace/v1
sources:
  - name: payments
    columns: {transaction_id: int64, tx_ts: timestamp, customer_id: int64, terminal_id: int64, amount: "decimal(12,2)", is_fraud: bool}
    event_time: tx_ts
    event_id: transaction_id
    batch: {format: parquet, path: "${MILLRACE_DATA}/card_transactions.parquet"}
entities:
  - {name: payer, join_key: customer_id, type: int64}
  - {name: till, join_key: terminal_id, type: int64}
feature_views:
  - name: payer_habits
    entity: payer
    source: payments
    start: 2018-04-01
    features:
      - {name: "n_{window}", aggregate: count, windows: [10s, 2m, 1h, 30d]}
      - {name: sum_1d, aggregate: sum, column: amount, window: 1d}
      - {name: avg_7d, aggregate: avg, column: amount, window: 7d}
      - {name: max_7d, aggregate: max, column: amount, window: 7d}
  - name: till_risk
    entity: till
    source: payments
    start: 2018-04-01
    features:
      - {name: fraud_7d, aggregate: sum, expr: "CASE WHEN is_fraud THEN 1 ELSE 0 END", window: 7d, offset: 7d}
      - {name: n_30d, aggregate: count, window: 30d, offset: 7d}
"""


def main() -> None:
    """Build, judge, and print what each took."""
    days = Days.parse("2018-04-01", sys.argv[1] if len(sys.argv) > 1 else "2018-10-01")
    with tempfile.TemporaryDirectory() as folder, expectation_judge() as expectations:
        (Path(folder) / "views").mkdir()
        (Path(folder) / "views" / "payments.yaml").write_text(VIEWS)
        settings = replace(
            settings_from_env(), lake=f"{folder}/lake", views=(Path(folder) / "views",)
        )
        plan = load_plan(settings)
        source, views = plan.sources["payments"], plan.views_of("payments")
        store, judge = OfflineStore(settings, gated=True), LakeJudge(settings, expectations)
        told: dict[str, Any] = {
            "publish": False,
            "progress": lambda text: sys.stderr.write(f"{text}\n"),
        }
        timed = _Timed()
        progress = told["progress"]
        report = timed("build events", store.build_events, source, views, days, progress=progress)
        found = [timed("judge events", judge.judge_events, source, views, report, **told)]
        for view in views:
            timed(f"build tiles {view.name}", store.build_tiles, view, days, progress=progress)
            report = timed(
                f"build features {view.name}", store.build_features, view, days, progress=progress
            )
            judged = timed(
                f"judge features {view.name}", judge.judge_features, view, report, **told
            )
            found.append(judged)
    built = sum(s for name, s in timed.seconds.items() if name.startswith("build"))
    judged_s = sum(s for name, s in timed.seconds.items() if name.startswith("judge"))
    print(
        json.dumps(
            {
                "days": len(days),
                "seconds": {name: round(s, 2) for name, s in timed.seconds.items()},
                "share": round(judged_s / built, 4),
                "held": {j.table: [d.isoformat() for d in j.held] for j in found},
                "days_with_findings": {
                    j.table: sum(any(f.is_alarm for f in d.findings) for d in j.days) for j in found
                },
            },
            indent=2,
        )
    )


class _Timed:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, call: Any, *arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        result = call(*arguments, **named)
        self.seconds[name] = time.monotonic() - began
        return result


if __name__ == "__main__":
    main()
