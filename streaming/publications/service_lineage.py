"""Tells OpenLineage of feature services: which of what is served each of them asks for."""

from collections.abc import Iterator
from datetime import UTC, datetime

from lineage import events, facets
from lineage.datasets import Dataset
from lineage.emitter import Emitter
from lineage.naming import online_name, table_name
from lineage.quiet import quietly
from millrace.errors import EngineUnavailable
from millrace.names import features_table
from millrace.plan import Plan, ServicePlan
from resources.endpoints import store_url
from resources.lake.view_versions import deployed_version
from resources.settings import Settings


@quietly
def services_published(settings: Settings, plan: Plan) -> None:
    """Tell of every feature service, just after all of them were published.

    Each is a job without runs, ``service/<name>``, which reads what is served of its views. Of a view
    that is kept offline it is the features, once there are any.
    """
    emitter, now = Emitter(settings), datetime.now(tz=UTC)
    if not emitter.is_on:
        return
    for service in plan.services.values():
        about = {"jobType": facets.job_type("SERVICE")}
        if service.description:
            about["documentation"] = facets.job_text(service.description)
        read = list(_read(settings, plan, service))
        emitter.declare(
            events.job_event(f"service/{service.name}", now, job_facets=about, inputs=read)
        )


def _read(settings: Settings, plan: Plan, service: ServicePlan) -> Iterator[Dataset]:
    for view in (plan.view(name) for name in service.views):
        if view.is_online:
            try:
                yield Dataset(online_name(store_url(settings), view.name))
            except EngineUnavailable:
                continue
        elif version := deployed_version(settings, view):
            yield Dataset(table_name(settings, features_table(view.name, version)))
