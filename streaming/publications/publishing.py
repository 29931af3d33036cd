"""The publication of a view: what server and writer learn of it, in the store's ``m1:plans``.

A publication follows from the view's record alone, but for what only the store can know: whether
it still holds the batch tiles that were uploaded. A store that lost its publications gets the same
again, and the batch tiles count as missing until they are uploaded anew.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millrace.compile.serving import serving_plan
from millrace.errors import PlanError
from millrace.plan import Plan, ViewPlan
from millrace.published import (
    PLANS_KEY,
    PROGRESS_KEY,
    PublishedVersion,
    PublishedView,
    VersionState,
)
from resources.store.client import store_errors
from streaming.publications.records import StreamRecord

if TYPE_CHECKING:
    from redis import Redis

SERVICES_FIELD = b"services"
_AOF_TIMEOUT_MS = 2_000

Change = Callable[[PublishedView | None], PublishedView | None]


def view_field(view: str) -> bytes:
    """Return the field of ``m1:plans`` that holds a view's publication."""
    return f"view:{view}".encode()


def publish(client: "Redis", record: StreamRecord, now_ms: int) -> PublishedView | None:
    """Bring a view's publication to what its record says; does nothing if it is that already.

    Safe beside other writers of the same field: it is repeated if they came between.

    Raises:
        StoreError: the store failed.
    """
    return amend(client, record.view, lambda found: wanted(record, found, now_ms))


def publish_services(client: "Redis", plan: Plan) -> None:
    """Replace the published feature services by those of a plan.

    Raises:
        StoreError: the store failed.
    """
    services = {s.name: [list(feature) for feature in s.features] for s in plan.services.values()}
    with store_errors("m1:plans"):
        client.hset(PLANS_KEY, SERVICES_FIELD, json.dumps(services, sort_keys=True))


def withdraw(client: "Redis", view: str) -> None:
    """Remove a view's publication; servers then know the view no more.

    Raises:
        StoreError: the store failed.
    """
    amend(client, view, lambda _: None)


def read_published(client: "Redis") -> dict[str, PublishedView]:
    """Return all publications by view.

    Raises:
        StoreError: the store failed.
    """
    with store_errors("m1:plans"):
        fields: Any = client.hgetall(PLANS_KEY)
    texts = {
        name.removeprefix(b"view:").decode(): text.decode()
        for name, text in fields.items()
        if name.startswith(b"view:")
    }
    return {name: PublishedView.from_json(text) for name, text in texts.items()}


def read_progress(client: "Redis") -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return what the writer last said of each (view, fingerprint).

    Raises:
        StoreError: the store failed.
    """
    with store_errors("m1:plans"):
        fields: Any = client.hgetall(PROGRESS_KEY)
    found = {}
    for name, text in fields.items():
        view, _, fingerprint = name.decode().rpartition("/")
        found[view, fingerprint] = json.loads(text)
    return found


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


def amend(client: "Redis", view: str, change: Change) -> PublishedView | None:
    """Read, change and write back a view's publication; returns what stands then.

    Args:
        client: the store.
        view: name of the view.
        change: gets the publication (None if there is none) and returns the new one (None removes
            it). Called again if another writer came between.

    Raises:
        StoreError: the store failed.
    """
    name = view_field(view)
    with store_errors("m1:plans"), client.pipeline() as opened:
        pipe: Any = opened
        while True:
            pipe.watch(PLANS_KEY)
            text = pipe.hget(PLANS_KEY, name)
            found = None if text is None else PublishedView.from_json(text.decode())
            new = change(found)
            if new == found:
                return new
            pipe.multi()
            if new is None:
                pipe.hdel(PLANS_KEY, name)
            else:
                pipe.hset(PLANS_KEY, name, new.to_json())
            if _committed(pipe):
                break
    wait_for_disk(client)
    return new


def _committed(pipe: Any) -> bool:
    from redis.exceptions import WatchError

    try:
        pipe.execute()
    except WatchError:
        return False
    return True


def wait_for_disk(client: Any, timeout_ms: int = _AOF_TIMEOUT_MS) -> None:
    """Wait until the store has on disk what this client wrote, as far as it can say so.

    Raises:
        StoreError: the store failed.
    """
    from redis.exceptions import ResponseError

    with store_errors("WAITAOF"):
        try:
            client.execute_command("WAITAOF", 1, 0, timeout_ms)
        except ResponseError:
            # Redis before 7.2, or no append-only file: what is lost is put back by the sensor.
            return


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
