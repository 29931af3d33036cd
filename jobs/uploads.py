"""Uploads that follow the lake: what was built of a served view's tiles goes into the online store.

A view that is deployed had its tiles uploaded then, and a view without a stream is served since its
first upload. From there on each new day, and each day that was built anew, is uploaded by a run that
the sensor asks for. The sensor reads the partition log, the records of streams and uploads, and what
the store has published of the latter, and changes nothing.
"""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_assets.keys import online_path
from feature_assets.lineage import enclosing
from jobs.run_states import UNDER_WAY
from millrace.errors import DataError, EngineUnavailable, PlatformError, StoreError
from millrace.plan import Plan, ViewPlan
from resources.lineage.runs import within
from streaming.engines import Engines

if TYPE_CHECKING:
    from streaming.records import StreamRecord
    from streaming.upload import Progress, UploadReport
    from streaming.upload_plan import UploadPlan
    from streaming.uploaded_views import UploadedView

UPLOAD_JOB = "upload_views"
STORE_POOL = "online_store"
"""One upload at a time: several would only share the store's one thread."""

_INTERVAL_S = 60
_RETRIES = 3
_RETRY_AFTER_S = 60
_LOST_EVERY_MS = 300_000
_CONFIG = {"views": dg.Field([str], description="Feature views that are published.")}


def upload_job(engines: Engines) -> dg.JobDefinition:
    """Return the job ``upload_views``; a store that is away is waited for, anything else fails."""

    @dg.op(
        name="upload_tiles",
        config_schema=_CONFIG,
        pool=STORE_POOL,
        description="Uploads the batch tiles of views; one that fails stops no other.",
    )
    def upload_tiles(context: dg.OpExecutionContext) -> None:
        from resources.declarations import load_valid_plan

        plan, faults = load_valid_plan(engines.settings)
        errors, outer = [], enclosing(context)
        for view in context.op_config["views"]:
            try:
                with within(outer):
                    report = _kept_up(engines, plan, view, context.log.info, faulty=bool(faults))
            except (StoreError, EngineUnavailable) as error:
                # Uploading again what is stored already changes nothing.
                raise dg.RetryRequested(_RETRIES, _RETRY_AFTER_S) from error
            except PlatformError as error:
                errors.append(f"{view}: {error}")
            else:
                if report is not None:
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


def _kept_up(
    engines: Engines, plan: Plan, view: str, progress: "Progress", *, faulty: bool
) -> "UploadReport | None":
    """Upload a view; drop what its uploads left behind, all of it if it is to be served no more."""
    from streaming.upload import upload
    from streaming.uploaded_views import drop_retired, withdraw_upload

    declared = plan.views.get(view)
    if not faulty and (declared is None or not declared.is_online):
        withdraw_upload(engines, view)
        progress(f"{view} is declared to be served no more: withdrawn")
        return None
    report = upload(engines.settings, plan, view, progress)
    dropped = drop_retired(engines, view)
    if dropped:
        progress(f"{view}: {dropped} former version(s) dropped")
    return report


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
        asset_key=dg.AssetKey(online_path(view)),
        metadata=metadata,
        tags={"dagster/code_version": view.fingerprint},
    )


def upload_sensor(engines: Engines, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor ``upload_new_days``; on by default, every minute."""

    @dg.sensor(
        name="upload_new_days",
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
    from streaming.uploaded_views import UploadedFiles

    known: dict[str, list[Any]] = json.loads(cursor) if cursor else {}
    plan, faults = load_valid_plan(engines.settings)
    seen: dict[str, list[Any]] = {}
    requests = []
    files = RecordFiles.of(engines.settings.home)
    streams = files.read_all()
    for name, uploaded in UploadedFiles.of(engines.settings.home).read_all().items():
        if name in streams or files.is_being_uploaded(name):
            continue
        due, seen[name] = _due_of_uploads(
            engines, plan, uploaded, known.get(name), has_faults=bool(faults)
        )
        if due:
            requests.append(_request(name, [due, *seen[name]], now))
    for name, record in streams.items():
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


def _due_of_uploads(
    engines: Engines,
    plan: Plan,
    record: "UploadedView",
    mark: list[Any] | None,
    *,
    has_faults: bool,
) -> tuple[str, list[Any]]:
    """Say why a view without a stream is to be uploaded, or looked after, now; empty if it is not.

    A new definition is uploaded by itself once it was built as far as the one that is served. With it
    comes the mark of what was seen.
    """
    view = plan.views.get(record.view)
    is_ours = set(record.folders) <= {str(folder) for folder in engines.settings.views}
    if view is None or not view.is_online:
        return ("withdraw" if is_ours and not has_faults else ""), mark or []
    is_same = view.fingerprint == record.fingerprint
    what = _planned(engines, view, record if is_same else None)
    if what is None:
        return "", mark or []
    found = [view.fingerprint, what.built_ms]
    if is_same:
        is_changed = bool(mark) and mark != found
        is_built = is_changed or what.cut_over_ms > record.cut_over_ms
        return _due_of_version(engines, record, is_built=is_built), found
    return ("version" if what.cut_over_ms >= record.cut_over_ms else ""), found


def _due_of_version(engines: Engines, record: "UploadedView", *, is_built: bool) -> str:
    from streaming.uploaded_views import due_versions

    if _is_lost(engines, record):
        return f"lost at {engines.now_ms() // _LOST_EVERY_MS}"
    if is_built:
        return "built"
    return "retire" if due_versions(record, engines.now_ms()) else ""


def _is_lost(engines: Engines, record: "UploadedView") -> bool:
    """Tell whether the store lost what was published; False while it does not answer."""
    from streaming.publishing import published_version, read_published

    try:
        with engines.store() as client:
            found = read_published(client).get(record.view)
    except PlatformError:
        return False
    return published_version(found, record.fingerprint) is None


def _planned(
    engines: Engines, view: ViewPlan, record: "StreamRecord | UploadedView | None"
) -> "UploadPlan | None":
    from streaming.upload_plan import Held, plan_upload

    held = Held() if record is None else Held(record.cut_over_ms, record.sealed_before_ms)
    try:
        return plan_upload(engines.settings, view, held, engines.now_ms())
    except DataError:
        # Nothing is built yet, and the stream serves alone.
        return None


def _request(view: str, mark: list[Any], now: datetime) -> dg.RunRequest:
    return dg.RunRequest(
        run_key="|".join(map(str, (view, *mark, now.date()))),
        run_config={"ops": {"upload_tiles": {"config": {"views": [view]}}}},
    )
