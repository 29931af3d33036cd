"""The publication of a view: what server and writer learn of it, in the store's ``m1:plans``.

A publication follows from the view's record alone, but for what only the store can know: whether
it still holds the batch tiles that were uploaded. A store that lost its publications gets the same
again, and the batch tiles count as missing until they are uploaded anew.
"""

import json
from dataclasses import replace
from typing import Any

from millrace.compile.serving import serving_plan
from millrace.errors import PlanError
from millrace.plan import Plan, ViewPlan
from millrace.published import PublishedVersion, PublishedView, VersionState
from resources.store.online import OnlineStore
from streaming.publications.records import StreamRecord


def publish(store: OnlineStore, record: StreamRecord, now_ms: int) -> PublishedView | None:
    """Bring a view's publication to what its record says; does nothing if it is that already.

    Safe beside other writers of the same field: it is repeated if they came between.

    Raises:
        StoreError: the store failed.
    """
    return store.publications.amend(record.view, lambda found: wanted(record, found, now_ms))


def publish_services(store: OnlineStore, plan: Plan) -> None:
    """Replace the published feature services by those of a plan.

    Raises:
        StoreError: the store failed.
    """
    store.publications.replace_services({s.name: s.features for s in plan.services.values()})


def wanted(record: StreamRecord, found: PublishedView | None, now_ms: int) -> PublishedView:
    """Return the publication that follows from a record and from what is published already.

    Versions that serve no more stay published as ``retired`` until their keys are dropped.
    """
    older = record.previous
    versions = [] if older is None else [_version(older, found, "live", now_ms)]
    newest: VersionState = "live" if older is None else "building"
    versions.append(_version(record, found, newest, now_ms))
    retired = {old.fingerprint for old in record.retired}
    known = found.versions if found is not None else ()
    kept = [replace(v, state="retired") for v in known if v.fingerprint in retired]
    return PublishedView(
        name=record.view,
        entities=tuple(key["entity"] for key in record.serving["join_keys"]),
        serving=(record if older is None else older).version,
        versions=(*kept, *versions),
    )


def _version(
    record: StreamRecord, found: PublishedView | None, state: VersionState, now_ms: int
) -> PublishedVersion:
    known = published_version(found, record.fingerprint)
    return PublishedVersion(
        version=record.version,
        fingerprint=record.fingerprint,
        plan=record.serving,
        tile_topic=record.tile_topic,
        source_topic=record.source_topic,
        flink_group=record.flink_group,
        state=state,
        cut_over_ms=None if known is None else known.cut_over_ms,
        sealed_before_ms=None if known is None else known.sealed_before_ms,
        published_at_ms=now_ms if known is None else known.published_at_ms,
    )


def published_version(found: PublishedView | None, fingerprint: str) -> PublishedVersion | None:
    """Return the published version of a meaning; None if it is not published."""
    versions = found.versions if found is not None else ()
    return next((v for v in versions if v.fingerprint == fingerprint), None)


def require_online(view: ViewPlan) -> None:
    """Refuse to serve a view that is declared to stay offline.

    Raises:
        PlanError: it is.
    """
    if not view.is_online:
        raise PlanError(
            f"the view {view.name!r} is kept offline",
            where=str(view.where),
            fix="remove `online: false` to have it served",
        )


def serving_of(view: ViewPlan) -> dict[str, Any]:
    """Return a view's serving plan as it reads once it was stored."""
    document: dict[str, Any] = json.loads(json.dumps(serving_plan(view)))
    return document
