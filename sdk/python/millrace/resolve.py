"""Specs into a plan: every cross-check, every semantic choice, every fault at once."""

from collections.abc import Mapping
from dataclasses import replace

from millrace.errors import Fault, SpecError
from millrace.faults import FaultList, is_read
from millrace.plan import EntityPlan, Plan, ServicePlan, SourcePlan, ViewPlan
from millrace.rules.names import declared_once
from millrace.rules.services import service_plan
from millrace.rules.sources import Columns, check_topics, entity_plan, read_columns, source_plan
from millrace.rules.views import Scope, view_plan
from millrace.spec import Column, Entity, FeatureView, Source, Specs


def resolve(specs: Specs) -> Plan:
    """Return what the declarations mean.

    Two declarations of one source or entity are welcome if they mean the same, so that files can
    stand alone; views and services are declared once.

    Raises:
        SpecError: with every fault of every declaration, in the order found.
    """
    plan, faults = resolve_as_far_as_read(specs)
    if plan is None:
        raise SpecError.of(faults)
    return plan


def resolve_as_far_as_read(
    specs: Specs, *, is_complete: bool = True
) -> tuple[Plan | None, list[Fault]]:
    """Return a plan, or None and every fault.

    ``is_complete`` is False if a file could not be read at all; names that are unknown are then no
    faults, because that file may hold them. The same holds where a name could not be read.
    """
    faults = FaultList()
    declared: list[Source | Entity | FeatureView] = [
        *specs.sources,
        *specs.entities,
        *specs.views,
    ]
    is_complete = is_complete and all(is_read(one.name) for one in declared)
    scope = _scope(specs, faults, is_complete=is_complete)
    views: dict[str, ViewPlan] = {}
    for view in specs.views:
        plan = view_plan(view, scope, faults)
        if plan is not None:
            views.setdefault(view.name, plan)
    services = _services(specs, scope, faults)
    if faults:
        return None, list(faults)
    return Plan(scope.source_plans, scope.entity_plans, views, services), []


def _scope(specs: Specs, faults: FaultList, *, is_complete: bool) -> Scope:
    sources = declared_once(specs.sources, "a source", faults, is_same=_is_same_source)
    entities = declared_once(specs.entities, "an entity", faults, is_same=_is_same_entity)
    views = declared_once(specs.views, "a feature view", faults)
    columns: dict[str, Columns] = {}
    source_plans: dict[str, SourcePlan] = {}
    # Every declaration is checked, also one whose name is bad or taken; the first of a name counts.
    for source in specs.sources:
        read = read_columns(source, faults)
        resolved = source_plan(source, read, faults)
        if sources.get(source.name) is source:
            columns[source.name] = read
            if resolved is not None:
                source_plans[source.name] = resolved
    check_topics(sources.values(), faults)
    entity_plans: dict[str, EntityPlan] = {}
    for entity in specs.entities:
        found = entity_plan(entity, faults)
        if found is not None and entities.get(entity.name) is entity:
            entity_plans[entity.name] = found
    return Scope(
        sources, columns, source_plans, entities, entity_plans, views, is_complete=is_complete
    )


def _services(specs: Specs, scope: Scope, faults: FaultList) -> Mapping[str, ServicePlan]:
    services = declared_once(specs.services, "a feature service", faults)
    plans: dict[str, ServicePlan] = {}
    for service in specs.services:
        plan = service_plan(service, scope.views, services, faults, is_complete=scope.is_complete)
        plans.setdefault(service.name, plan)
    return plans


def _is_same_source(one: Source, other: Source) -> bool:
    return _undescribed(one) == _undescribed(other)


def _undescribed(source: Source) -> Source:
    columns = {
        name: replace(column, description="") if isinstance(column, Column) else column
        for name, column in source.columns.items()
    }
    return replace(source, columns=columns, description="")


def _is_same_entity(one: Entity, other: Entity) -> bool:
    return (one.join_key, one.type) == (other.join_key, other.type)
