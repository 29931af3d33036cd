"""The composition root: what Dagster loads. Nothing heavy is imported and nothing is opened."""

import logging
import warnings
from datetime import UTC, datetime

import dagster as dg

from checks.history import history_checks
from checks.parity.asset_check import parity_checks
from checks.reconciliation import reconciliation_checks
from feature_assets.factory import plan_assets
from feature_assets.links import links_of, with_pages
from feature_assets.offline import offline_lake
from feature_assets.specs import live_specs
from jobs.alerts.sensor import alert_sensor, deliver_job
from jobs.batch.arrivals import arrival_checks, arrived_sensors
from jobs.batch.automation import following_sensor, late_data_sensors
from jobs.batch.backfill_jobs import backfill_jobs, source_job
from jobs.batch.history_sensor import history_sensor
from jobs.batch.known_days import known_days_job
from jobs.batch.missing_history import history_job
from jobs.batch.schedules import source_schedules
from jobs.instance.lineage import lineage_job, lineage_sensor
from jobs.instance.retention import retention_job, retention_schedule
from jobs.streams.actions import stream_jobs
from jobs.streams.sensor import stream_sensor
from jobs.streams.uploads import upload_job, upload_sensor
from millrace.errors import SpecError
from millrace.plan import Plan
from resources.declarations import load_valid_plan
from resources.settings import Settings, settings_from_env
from streaming.engines import Engines

_log = logging.getLogger(__name__)

# Backfills of a range, checks by partition and references to code are beta or preview in Dagster.
# Tests hold them to the release in use, and a warning for each asset would bury the log.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.simplefilter("ignore", _category)


@dg.definitions
def defs() -> dg.Definitions:
    """Load every declaration of the settings' folders.

    A file with a fault is left out, with what needs it; its faults stand in the code location's
    metadata and log, and the other views load.
    """
    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    if faults:
        _log.error("%s", SpecError.of(faults))
    return build_definitions(
        plan, settings, metadata={"faults": dg.MetadataValue.text("\n".join(map(str, faults)))}
    )


def build_definitions(
    plan: Plan,
    settings: Settings,
    *,
    offline: object | None = None,
    engines: Engines | None = None,
    metadata: dict[str, dg.MetadataValue] | None = None,
    now: datetime | None = None,
) -> dg.Definitions:
    """Return assets, checks, jobs, schedules and sensors of a plan.

    Args:
        plan: the declarations.
        settings: for the lake's place and the raw files' paths.
        offline: what builds the tables; None for the lake of the settings.
        engines: the doors to Flink, Kafka and the store; None for those of the settings.
        metadata: shown with the code location.
        now: the present instant, by which a closed source is over; None: by the clock.
    """
    now = now or datetime.now(tz=UTC)
    sources = [
        (source, views, source_job(source, views))
        for source in plan.sources.values()
        if (views := plan.views_of(source.name))
    ]
    engines = engines or Engines(settings)
    actions, *by_hand = stream_jobs(engines)
    pruning, uploading = retention_job(settings), upload_job(engines)
    alerts, lineage = deliver_job(engines), lineage_job(settings)
    return dg.Definitions(
        assets=with_pages(
            [
                *plan_assets(plan, settings.lake, settings.docs_url),
                *live_specs(plan, settings.lake, links_of(settings)),
            ],
            settings.docs_url,
        ),
        asset_checks=[
            *reconciliation_checks(plan),
            *history_checks(plan),
            *parity_checks(plan),
            *arrival_checks(sources, settings),
        ],
        jobs=[
            *backfill_jobs(plan),
            history_job(engines),
            actions,
            *by_hand,
            alerts,
            lineage,
            pruning,
            uploading,
            known_days_job(settings),
        ],
        schedules=[
            *(
                schedule
                for source, views, job in sources
                for schedule in source_schedules(source, views, job, settings, now)
            ),
            retention_schedule(pruning),
        ],
        sensors=[
            stream_sensor(engines, actions),
            upload_sensor(engines, uploading),
            following_sensor(),
            history_sensor(plan, settings),
            *arrived_sensors(sources, settings, now),
            *late_data_sensors(sources, settings),
            alert_sensor(engines, alerts),
            lineage_sensor(settings, lineage),
        ],
        resources={"offline": offline_lake(settings) if offline is None else offline},
        # One process per run: a process per step would connect to Spark anew for each.
        executor=dg.in_process_executor,
        metadata=metadata,
    )
