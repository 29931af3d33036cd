"""Whether the built days of a view are as declared, as an asset check of its values.

A change of a declaration, or a build of another view, decides it as much as a build of its own. So the
sensor ``judge_history`` judges it, whenever something was built or declared; it can be run by hand too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from millrace.plan import Plan, ViewPlan
from resources.dagster.asset_keys import features_path
from resources.settings import settings_from_env

if TYPE_CHECKING:
    from offline.tables.view_history import ViewHistory

HISTORY = "history"
"""Name of the check on ``features/<view>``."""


def history_checks(plan: Plan) -> list[dg.AssetChecksDefinition]:
    """Return the check ``history`` on ``features/<view>`` of every view; one step judges them all."""
    views = {check_key(view): view for view in plan.views.values()}
    if not views:
        return []

    @dg.multi_asset_check(
        name="view_history",
        specs=[
            dg.AssetCheckSpec(
                HISTORY,
                asset=key.asset_key,
                description="Every built day is of the declared definition, and had all days that "
                "its windows reach into when it was built. Judged whenever something was built.",
            )
            for key in views
        ],
        can_subset=True,
    )
    def view_history(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        from offline.tables.view_history import view_histories

        chosen = [view for key, view in views.items() if key in context.selected_asset_check_keys]
        found = view_histories(settings_from_env(), chosen)
        for view in chosen:
            of = check_key(view)
            yield dg.AssetCheckResult(
                asset_key=of.asset_key, check_name=of.name, **verdict(found[view.name])
            )

    return [view_history]


def check_key(view: ViewPlan) -> dg.AssetCheckKey:
    """Return the key of a view's check."""
    return dg.AssetCheckKey(dg.AssetKey(features_path(view)), HISTORY)


def verdict(history: "ViewHistory") -> dict[str, Any]:
    """Return what is said of a view's history, as fields of a check's result or evaluation."""
    whole = f"{history.built} day(s) stand as declared" if history.built else "no day is built"
    return {
        "passed": not history.detail,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": history.detail or whole,
        "metadata": {
            "built_days": history.built,
            "unsynced_days": len(history.unsynced),
            "incomplete_days": len(history.incomplete),
            "absent_days": len(history.absent),
            **({"mend": history.command} if history.command else {}),
        },
    }
