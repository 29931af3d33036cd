"""The sensor that judges the history of views whenever something was built: the check ``history``.

It reads the partition log alone, and that only if it, the versions of views, the declarations or what
Dagster was told of builds are others than at its last look; it starts nothing.
"""

import hashlib
import json

import dagster as dg

from checks.history import HISTORY, check_key, verdict
from millrace.plan import Plan
from resources.settings import Settings

SENSOR = "judge_history"

_INTERVAL_S = 60


def history_sensor(plan: Plan, settings: Settings) -> dg.SensorDefinition:
    """Return the sensor; on by default, every minute."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges whether built days are as declared and had all that their windows "
        f"reach into: the check {HISTORY} of features.",
    )
    def judge_history(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return tick(plan, settings, context.instance, context.cursor)

    return judge_history


def tick(
    plan: Plan, settings: Settings, instance: dg.DagsterInstance, cursor: str | None
) -> dg.SensorResult | dg.SkipReason:
    """Judge every view that was ever built, and tell what is not as it was told last.

    Of a view that was materialised since it is told again: Dagster shows no check that is older.

    Args:
        plan: the declarations of the code location.
        settings: the lake.
        instance: to see what a run has said, or left unsaid, since.
        cursor: what was looked at, and what was told of each view.
    """
    from offline.tables import partition_log
    from offline.tables.view_history import view_histories
    from resources.lake import view_versions as versions
    from resources.lake.delta import table_version

    known = json.loads(cursor) if cursor else {"looked_at": None, "told": {}}
    built = _newest_builds(instance, plan)
    looked_at = [
        table_version(settings, partition_log.TABLE),
        table_version(settings, versions.TABLE),
        _digest(sorted(view.fingerprint for view in plan.views.values())),
        _digest(sorted(built.items())),
    ]
    if looked_at == known["looked_at"]:
        return dg.SkipReason("nothing was built or declared since the last look")
    found = view_histories(settings, plan.views.values())
    keys = {
        view.name: check_key(view)
        for view in plan.views.values()
        if found[view.name].state != "unbuilt"
    }
    told = {name: _digest([found[name].as_json(), built.get(name)]) for name in keys}
    by_runs = _last_told_by_runs(instance, list(keys.values()))
    evaluations = [
        dg.AssetCheckEvaluation(
            asset_key=key.asset_key, check_name=key.name, **verdict(found[name])
        )
        for name, key in keys.items()
        if told[name] != known["told"].get(name) or key in by_runs
    ]
    wrong = [f"{name}: {history.detail}" for name, history in found.items() if history.detail]
    return dg.SensorResult(
        asset_events=evaluations,
        cursor=json.dumps({"looked_at": looked_at, "told": told}),
        skip_reason="; ".join(wrong) or f"{len(told)} view(s) stand as declared",
    )


def _newest_builds(instance: dg.DagsterInstance, plan: Plan) -> dict[str, int]:
    """Return the event that is the newest materialisation of the features of each view that has any."""
    views = {check_key(view).asset_key: name for name, view in plan.views.items()}
    entries = [record.asset_entry for record in instance.get_asset_records(list(views))]
    return {
        views[entry.asset_key]: entry.last_materialization_storage_id
        for entry in entries
        if entry.last_materialization_storage_id is not None
    }


def _last_told_by_runs(
    instance: dg.DagsterInstance, keys: list[dg.AssetCheckKey]
) -> set[dg.AssetCheckKey]:
    """Return the checks of which a run said something last: of before its own build, or nothing."""
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {key for key, record in newest.items() if record.run_id}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
