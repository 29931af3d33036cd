"""What Dagster is told of ``online/<view>``: the version that answers lookups, and what waits beside it.

Every event says what the store publishes when it is written, which is what servers go by; a record says
what is wanted, and may be ahead of that. A change of the version is told where it is made, by the run
that made it. A change by hand, or by a run that died, is found by the next look of a sensor, which
compares the store with what was told last. Both say it in the same words, and it is said once.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_assets.links import build_history_links
from millrace.published import PublishedView
from resources.dagster.asset_keys import asset_path
from resources.settings import Settings

if TYPE_CHECKING:
    from streaming.control.waiting import Waiting

BY_HAND = "found in the store: changed by hand, or by a run that was cut off"

OnlineEvent = dg.AssetMaterialization | dg.AssetObservation


def online_key(view: str) -> dg.AssetKey:
    """Return the asset key of what is served of a view, declared or not."""
    return dg.AssetKey(asset_path("online", view))


def told_apart(found: PublishedView | None, waiting: "Waiting | None") -> str:
    """Return a text that is another one as soon as there is news of what is served.

    How far a job has read is none: it changes at every look while a version catches up.
    """
    text = str(None if found is None else found.serving)
    if waiting is None:
        return text
    lacks = f"{len(waiting.history.days)} days, {len(waiting.reasons)} reasons"
    return f"{text}|{waiting.version} lacks {lacks}"


def online_event(
    instance: dg.DagsterInstance,
    settings: Settings,
    view: str,
    found: PublishedView | None,
    *,
    waiting: "Waiting | None" = None,
    is_kept_up: bool = False,
    why: str = BY_HAND,
    **more: Any,
) -> OnlineEvent:
    """Return the event of what is served of a view now.

    Args:
        instance: to know which version was told last.
        settings: for links.
        view: name of the view.
        found: what the store publishes of it; None for nothing.
        waiting: the version beside it.
        is_kept_up: its tiles reach the store. Only then, and where the version is another than was
            told, it is a materialization, which is all that Dagster's freshness counts.
        why: what changed the version, if it was changed.
        **more: further metadata; what is None is left out.
    """
    serving = None if found is None or found.serving is None else found.version(found.serving)
    version, was = None if serving is None else serving.version, reported_version(instance, view)
    about = {"version": version, "published": serving is not None, **more}
    if serving is not None and serving.cut_over_ms is not None:
        about["cut_over"] = dg.MetadataValue.timestamp(serving.cut_over_ms / 1000)
    if was is not None and was != version:
        about |= {"from_version": was, "to_version": version or "none", "why": why}
    if waiting is not None:
        about |= _waits(settings, waiting)
    metadata = {name: value for name, value in about.items() if value is not None}
    if serving is not None and (is_kept_up or was not in {None, version}):
        tags = {"dagster/code_version": serving.fingerprint}
        return dg.AssetMaterialization(online_key(view), metadata=metadata, tags=tags)
    return dg.AssetObservation(online_key(view), metadata=metadata)


def changed_event(
    instance: dg.DagsterInstance,
    settings: Settings,
    view: str,
    found: PublishedView | None,
    why: str,
) -> OnlineEvent | None:
    """Return the event of a version that was not told yet; None if it was."""
    serving = None if found is None else found.serving
    if serving == reported_version(instance, view):
        return None
    return online_event(instance, settings, view, found, why=why)


def reported_version(instance: dg.DagsterInstance, view: str) -> str | None:
    """Return the version that was last said to answer lookups; None if none ever was, or none did."""
    key = online_key(view)
    newest = [
        *instance.fetch_materializations(key, limit=1).records,
        *instance.fetch_observations(key, limit=1).records,
    ]
    if not newest:
        return None
    entry = max(newest, key=lambda record: record.storage_id).event_log_entry
    event = entry.asset_materialization or entry.asset_observation
    version = None if event is None else event.metadata.get("version")
    return None if version is None else str(version.value)


def _waits(settings: Settings, waiting: "Waiting") -> dict[str, Any]:
    days = waiting.history.days
    told: dict[str, Any] = {"waits": waiting.version, "waits_for": "; ".join(waiting.reasons)}
    if days:
        told |= {
            "missing_days": len(days),
            "missing_from": days[0].isoformat(),
            "missing_to": days[-1].isoformat(),
            "missing_tables": ", ".join(waiting.history.tables),
            "build_command": waiting.history.command(waiting.view),
            **build_history_links(settings, waiting.view),
        }
    return told
