"""Uploads that follow the lake: what was built of a served view's tiles goes into the online store.

A view that is deployed had its tiles uploaded then, and a view without a stream is served since its
first upload. From there on each new day, and each day that was built anew, is uploaded by a run that
the sensor asks for. The sensor reads the partition log, the records of streams and uploads, and what
the store has published of the latter, and changes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_assets.timing import REPORT_EVERY_MS
from jobs.instance.run_kinds import UPKEEP
from jobs.instance.run_states import UNDER_WAY
from jobs.streams.online_reports import OnlineEvent, changed_event, online_event, told_apart
from lineage.builds import enclosing
from lineage.runs import within
from millrace.errors import DataError, EngineUnavailable, PlatformError, StoreError
from millrace.plan import Plan, ViewPlan
from streaming.engines import Engines

if TYPE_CHECKING:
    from millrace.published import PublishedView
    from resources.progress import Progress
    from streaming.control.waiting import Waiting
    from streaming.publications.records import StreamRecord
    from streaming.publications.uploaded_views import UploadedView
    from streaming.upload.plan import UploadPlan
    from streaming.upload.upload import UploadReport

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
                event = _event(context.instance, engines, view, report)
                if event is not None:
                    context.log_event(event)
        if errors:
            raise dg.Failure("\n".join(errors), allow_retries=False)

    @dg.job(
        name=UPLOAD_JOB,
        tags=dict(UPKEEP),
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
    from streaming.publications.uploaded_views import drop_retired, withdraw_upload
    from streaming.upload.upload import upload

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


def _event(
    instance: dg.DagsterInstance, engines: Engines, view: str, report: "UploadReport | None"
) -> OnlineEvent | None:
    """Return what is served after an upload; of a view that was withdrawn, that nothing is."""
    with engines.store() as store:
        found = store.publications.read_view(view)
    if report is None:
        return changed_event(
            instance, engines.settings, view, found, "declared to be served no more"
        )
    return online_event(
        instance,
        engines.settings,
        view,
        found,
        is_kept_up=found is not None and found.serving == report.version,
        why=f"the tiles of {report.version} are uploaded: {report.days} day(s)",
        uploaded_version=report.version,
        days=report.days,
        tiles=report.tiles,
        tiles_kept=report.kept,
        entities=report.entities,
        bytes=report.bytes,
        missing_days_in_reach=len(report.missing_days),
        upload_seconds=round(report.seconds, 3),
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
        return look(engines, context.instance, context.cursor, datetime.now(tz=UTC))

    return uploads


def look(
    engines: Engines, instance: dg.DagsterInstance, cursor: str | None, now: datetime
) -> dg.SensorResult:
    """Ask for the upload of each served view whose tiles have changed since the last look.

    At the first look at a view only new days count: it was uploaded when it was deployed. A key
    names when the content was built and the date, so an upload that failed is asked for again on
    the next day as long as days are missing in the store. What is served of views without a stream is
    reported as soon as it is another version, or something else is waited for, and now and then.
    """
    from resources.declarations import load_valid_plan

    plan, faults = load_valid_plan(engines.settings)
    known = json.loads(cursor) if cursor else {}
    one = _Look(engines, instance, plan, known, now, has_faults=bool(faults))
    one.at_uploads()
    one.at_streams()
    return dg.SensorResult(
        run_requests=one.requests,
        asset_events=one.events,
        cursor=json.dumps(one.seen),
        skip_reason=None if one.requests else "nothing was built that is not uploaded",
    )


@dataclass
class _Look:
    """One look: what was known by the last one, and what is asked for, told and known by this one."""

    engines: Engines
    instance: dg.DagsterInstance
    plan: Plan
    known: dict[str, list[Any]]
    now: datetime
    has_faults: bool
    seen: dict[str, list[Any]] = field(default_factory=dict)
    requests: list[dg.RunRequest] = field(default_factory=list)
    events: list[OnlineEvent] = field(default_factory=list)

    def at_uploads(self) -> None:
        """Look at views that are served by uploads alone."""
        from streaming.control.waiting import waiting_upload
        from streaming.publications.records import RecordFiles
        from streaming.publications.uploaded_views import UploadedFiles

        settings, now_ms = self.engines.settings, self.engines.now_ms()
        files, published = RecordFiles.of(settings.home), _published(self.engines)
        streams = files.read_all()
        for name, uploaded in UploadedFiles.of(settings.home).read_all().items():
            if name in streams or files.is_being_uploaded(name):
                continue
            waiting = waiting_upload(settings, self.plan.views.get(name), uploaded, now_ms)
            due, self.seen[name] = _due_of_uploads(
                self.engines,
                self.plan,
                uploaded,
                waiting,
                self.known.get(name),
                is_lost=_is_lost(published, uploaded),
                has_faults=self.has_faults,
            )
            if due:
                self.requests.append(_request(name, [due, *self.seen[name]], self.now))
            if published is not None:
                self._report(name, published.get(name), waiting)

    def _report(self, view: str, found: "PublishedView | None", waiting: "Waiting | None") -> None:
        name, now_ms, stands = f"told:{view}", self.engines.now_ms(), told_apart(found, waiting)
        told = self.known.get(name)
        if told is not None and told[0] == stands and now_ms - told[1] < REPORT_EVERY_MS:
            self.seen[name] = told
            return
        self.seen[name] = [stands, now_ms]
        self.events.append(
            online_event(self.instance, self.engines.settings, view, found, waiting=waiting)
        )

    def at_streams(self) -> None:
        """Look at views with a stream that runs as declared; the sensor of streams reports them."""
        from streaming.publications.records import RecordFiles

        files = RecordFiles.of(self.engines.settings.home)
        for name, record in files.read_all().items():
            view = self.plan.views.get(name)
            if (
                view is None
                or record.desired != "running"
                or record.fingerprint != view.fingerprint
            ):
                continue
            if files.is_being_changed(name) or files.is_being_uploaded(name):
                # By whoever deployed it, or by hand; what that upload leaves is seen next time.
                if name in self.known:
                    self.seen[name] = self.known[name]
                continue
            # With less than the version that serves it would be promoted, and answer from that.
            what = None
            if not _lacks_history(self.engines, view, record):
                what = _planned(self.engines, view, record)
            if what is None:
                continue
            # Not the table's version: each build of a day that is still open is one more of those.
            mark = [record.fingerprint, what.built_ms]
            is_changed = name in self.known and self.known[name] != mark
            if is_changed or what.cut_over_ms > (record.cut_over_ms or 0):
                self.requests.append(_request(name, mark, self.now))
            self.seen[name] = mark


def _published(engines: Engines) -> "Mapping[str, PublishedView] | None":
    """Return what the store publishes; None while it does not answer."""
    try:
        with engines.store() as store:
            return store.publications.read().views
    except PlatformError:
        return None


def _lacks_history(engines: Engines, view: ViewPlan, record: "StreamRecord") -> bool:
    from streaming.control.waiting import missing_history

    if record.previous is None or record.cut_over_ms is not None:
        return False
    return bool(missing_history(engines.settings, view, record.previous, engines.now_ms()).days)


def _due_of_uploads(
    engines: Engines,
    plan: Plan,
    record: "UploadedView",
    waiting: "Waiting | None",
    mark: list[Any] | None,
    *,
    is_lost: bool,
    has_faults: bool,
) -> tuple[str, list[Any]]:
    """Say why a view without a stream is to be uploaded, or looked after, now; empty if it is not.

    A new definition is uploaded by itself once every day was built that the one which is served
    answers from. With it comes the mark of what was seen.
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
        return _due_of_version(engines, record, is_lost=is_lost, is_built=is_built), found
    lacks = waiting is not None and bool(waiting.history.days)
    is_complete = what.cut_over_ms >= record.cut_over_ms and not lacks
    return ("version" if is_complete else ""), found


def _due_of_version(
    engines: Engines, record: "UploadedView", *, is_lost: bool, is_built: bool
) -> str:
    from streaming.publications.uploaded_views import due_versions

    if is_lost:
        return f"lost at {engines.now_ms() // _LOST_EVERY_MS}"
    if is_built:
        return "built"
    return "retire" if due_versions(record, engines.now_ms()) else ""


def _is_lost(published: "Mapping[str, PublishedView] | None", record: "UploadedView") -> bool:
    """Tell whether the store lost what was published, or still names the version before it.

    False while it does not answer.
    """
    if published is None:
        return False
    found = published.get(record.view)
    return found is None or found.serving != record.version


def _planned(
    engines: Engines, view: ViewPlan, record: "StreamRecord | UploadedView | None"
) -> "UploadPlan | None":
    from streaming.upload.plan import Held, plan_upload

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
