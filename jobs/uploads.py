"""Uploads that follow the lake: what was built of a served view's tiles goes into the online store.

A view that is deployed had its tiles uploaded then. From there on each new day, and each day that
was built anew, is uploaded by a run that the sensor asks for. The sensor reads the partition log
and the streams' records, and changes nothing.
"""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_assets.lineage import enclosing
from jobs.run_states import UNDER_WAY
from millrace.errors import DataError, EngineUnavailable, PlatformError, StoreError
from millrace.plan import ViewPlan
from resources.lineage.runs import within
from streaming.engines import Engines

if TYPE_CHECKING:
    from streaming.records import StreamRecord
    from streaming.upload import UploadReport
    from streaming.upload_plan import UploadPlan

UPLOAD_JOB = "upload"
STORE_POOL = "online_store"
"""One upload at a time: several would only share the store's one thread."""

_INTERVAL_S = 60
_RETRIES = 3
_RETRY_AFTER_S = 60
_CONFIG = {"views": dg.Field([str], description="Feature views that are published.")}


def upload_job(engines: Engines) -> dg.JobDefinition:
    """Return the job ``upload``; a store that is away is waited for, anything else fails."""

    @dg.op(
        name="upload_tiles",
        config_schema=_CONFIG,
        pool=STORE_POOL,
        description="Uploads the batch tiles of views; one that fails stops no other.",
    )
    def upload_tiles(context: dg.OpExecutionContext) -> None:
        from resources.declarations import load_valid_plan
        from streaming.upload import upload

        plan, _ = load_valid_plan(engines.settings)
        errors, outer = [], enclosing(context)
        for view in context.op_config["views"]:
            try:
                with within(outer):
                    report = upload(engines.settings, plan, view, context.log.info)
            except (StoreError, EngineUnavailable) as error:
                # Uploading again what is stored already changes nothing.
                raise dg.RetryRequested(_RETRIES, _RETRY_AFTER_S) from error
            except PlatformError as error:
                errors.append(f"{view}: {error}")
            else:
                context.log_event(_materialization(plan.view(view), report))
        if errors:
            raise dg.Failure("\n".join(errors), allow_retries=False)

    @dg.job(
        name=UPLOAD_JOB,
        description="Carries tiles of the lake into the online store.",
        executor_def=dg.in_process_executor,
    )
    def upload_views() -> None:
        upload_tiles()

    return upload_views


def _materialization(view: ViewPlan, report: "UploadReport") -> dg.AssetMaterialization:
    metadata: dict[str, Any] = {
        "version": report.version,
        "days": report.days,
        "tiles": report.tiles,
        "tiles_kept": report.kept,
        "entities": report.entities,
        "bytes": report.bytes,
        "missing_days": len(report.missing_days),
        "cut_over_ms": report.cut_over_ms,
        "upload_seconds": round(report.seconds, 3),
    }
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey(("online", view.name)),
        metadata=metadata,
        tags={"dagster/code_version": view.fingerprint},
    )


def upload_sensor(engines: Engines, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor ``uploads``; on by default, every minute."""

    @dg.sensor(
        name="uploads",
        job=job,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Uploads what was built of the tiles of views that are served.",
    )
    def uploads(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        under_way = dg.RunsFilter(job_name=UPLOAD_JOB, statuses=list(UNDER_WAY))
        if context.instance.get_runs_count(under_way):
            return dg.SkipReason("an upload is under way")
        return look(engines, context.cursor, datetime.now(tz=UTC))

    return uploads


def look(engines: Engines, cursor: str | None, now: datetime) -> dg.SensorResult:
    """Ask for the upload of each served view whose tiles have changed since the last look.

    At the first look at a view only new days count: it was uploaded when it was deployed. A key
    names when the content was built and the date, so an upload that failed is asked for again on
    the next day as long as days are missing in the store.
    """
    from resources.declarations import load_valid_plan
    from streaming.records import RecordFiles

    known: dict[str, list[Any]] = json.loads(cursor) if cursor else {}
    plan, _ = load_valid_plan(engines.settings)
    seen: dict[str, list[Any]] = {}
    requests = []
    files = RecordFiles.of(engines.settings.home)
    for name, record in files.read_all().items():
        view = plan.views.get(name)
        if view is None or record.desired != "running" or record.fingerprint != view.fingerprint:
            continue
        if files.is_being_changed(name) or files.is_being_uploaded(name):
            # By whoever deployed it, or by hand; what that upload leaves is seen next time.
            if name in known:
                seen[name] = known[name]
            continue
        what = _planned(engines, view, record)
        if what is None:
            continue
        # Not the table's version: each build of a day that is still open is one more of those.
        mark = [record.fingerprint, what.built_ms]
        is_changed = name in known and known[name] != mark
        if is_changed or what.cut_over_ms > (record.cut_over_ms or 0):
            requests.append(_request(name, mark, now))
        seen[name] = mark
    reason = None if requests else "nothing was built that is not uploaded"
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(seen), skip_reason=reason)


def _planned(engines: Engines, view: ViewPlan, record: "StreamRecord") -> "UploadPlan | None":
    from streaming.upload_plan import Held, plan_upload

    held = Held(record.cut_over_ms, record.sealed_before_ms)
    try:
        return plan_upload(engines.settings, view, held, engines.now_ms())
    except DataError:
        # Nothing is built yet, and the stream serves alone.
        return None


def _request(view: str, mark: list[Any], now: datetime) -> dg.RunRequest:
    fingerprint, built_ms = mark
    return dg.RunRequest(
        run_key=f"{view}|{fingerprint}|{built_ms}|{now.date()}",
        run_config={"ops": {"upload_tiles": {"config": {"views": [view]}}}},
    )
