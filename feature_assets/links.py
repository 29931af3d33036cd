"""Where to look at what an asset stands for: the declaration, a page of the docs, a running part.

Addresses are those of the parts that run when the code location is loaded; ``millrace up`` loads it
again once it has started one of them. None holds a secret: a store's URL, which may, is never shown.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import dagster as dg

from millrace.errors import EngineUnavailable
from millrace.plan import EntityPlan, ViewPlan
from millrace.spec import Location
from millrace.types import DataType
from resources.dagster.asset_keys import LOCATION, former_key
from resources.dagster.client import HISTORY_JOB
from resources.documentation import page_url
from resources.endpoints import dagster_url, flink_url, kafka_bootstrap, server_url
from resources.settings import CHECKOUT, Settings

_PAGES = {
    "raw": "docs/formats.md",
    "topic": "docs/stream-events.md",
    "dead_letters": "docs/concepts.md",
    "events": "docs/formats.md",
    "tiles": "docs/window-contract.md",
    "features": "docs/window-contract.md",
    "stream": "docs/streams.md",
    "online": "docs/serving.md",
    "services": "docs/serving.md",
}

BUILD_OP = "start_builds"
"""The one op of the job that builds what a waiting version lacks."""

_EXAMPLES = {
    "string": "A-101",
    "bool": True,
    "date": "2026-01-31",
    "timestamp": "2026-01-31T12:00:00Z",
    "bytes": "AAE=",
}


@dataclass(frozen=True)
class Links:
    """Base addresses of the parts that people look at; None for one that is not known."""

    kafka: str | None = None
    flink: str | None = None
    server: str | None = None


def links_of(settings: Settings) -> Links:
    """Return the addresses in the settings, or of the local stack's parts that run now."""
    return Links(
        kafka=_known(kafka_bootstrap, settings),
        flink=_known(flink_url, settings),
        server=_known(server_url, settings),
    )


def _known(find: Any, settings: Settings) -> str | None:
    try:
        return str(find(settings))
    except EngineUnavailable:
        return None


def about(path: tuple[str, str], where: Location) -> dict[str, Any]:
    """Return the metadata that every asset carries: its page of the docs and its declaration.

    Of one that has another key than it once had, also that: its runs and events of then are under it.
    """
    metadata: dict[str, Any] = {"docs": _PAGES[path[0]]}
    former = former_key(path)
    if former is not None:
        metadata["former_key"] = former
    if where.file and where.line:
        reference = dg.LocalFileCodeReference(
            file_path=str((CHECKOUT / where.file).resolve()), line_number=where.line
        )
        metadata["dagster/code_references"] = dg.CodeReferencesMetadataValue(
            code_references=[reference]
        )
    return metadata


def with_pages(
    assets: Iterable[dg.AssetSpec | dg.AssetsDefinition], docs: str | None
) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Have the pages of assets link to where the docs are served; as they are without."""
    if docs is None:
        return [*assets]

    def linked(spec: dg.AssetSpec) -> dg.AssetSpec:
        page = page_url(str(spec.metadata["docs"]), docs)
        return spec.merge_attributes(metadata={"docs": dg.MetadataValue.url(page)})

    return [*dg.map_asset_specs(linked, assets)]


def topic_links(links: Links, topic: str) -> dict[str, Any]:
    """Return the address of a topic, if its broker is known."""
    if links.kafka is None:
        return {}
    return {"dagster/uri": f"kafka://{links.kafka}/{topic}"}


def stream_links(links: Links) -> dict[str, Any]:
    """Return Flink's own web page, if it is known."""
    if links.flink is None:
        return {}
    return {"flink_ui": dg.MetadataValue.url(f"{links.flink}/#/job/running")}


def job_link(links: Links, job_id: str | None) -> dict[str, Any]:
    """Return the page of one Flink job, if both are known."""
    if links.flink is None or job_id is None:
        return {}
    return {"flink_job": dg.MetadataValue.url(f"{links.flink}/#/job/running/{job_id}/overview")}


def build_history_links(settings: Settings, view: str) -> dict[str, Any]:
    """Return the job that builds what a waiting version lacks, and its launchpad, filled in."""
    found: dict[str, Any] = {"build_job": dg.MetadataValue.job(HISTORY_JOB, LOCATION)}
    base = _known(dagster_url, settings)
    if base is not None:
        config = quote(f"ops:\n  {BUILD_OP}:\n    config:\n      views: [{view}]\n", safe="")
        place = f"{base}/locations/{LOCATION}/jobs/{HISTORY_JOB}"
        found["build"] = dg.MetadataValue.url(f"{place}/playground/setup?config={config}")
    return found


def online_links(links: Links, view: ViewPlan) -> dict[str, Any]:
    """Return how to ask for a view's values: the API's page, and a command line to try."""
    base = links.server or "$MILLRACE_SERVER"
    body = json.dumps(
        {
            "entity_name": ",".join(entity.name for entity in view.entities),
            "keys": [_example_key(view.entities)],
            "features": [f"{view.name}:*"],
        }
    )
    line = f"curl -s {base}/v1/features:lookup -H 'content-type: application/json' -d '{body}'"
    known = {"api_docs": dg.MetadataValue.url(f"{links.server}/docs")} if links.server else {}
    return {**known, "try_it": dg.MetadataValue.md(f"```\n{line}\n```")}


def _example_key(entities: tuple[EntityPlan, ...]) -> Any:
    values = {entity.join_key: _example(entity.type) for entity in entities}
    return values if len(values) > 1 else next(iter(values.values()))


def _example(type_: DataType) -> Any:
    if type_.is_numeric:
        return 101
    return _EXAMPLES[type_.kind]
