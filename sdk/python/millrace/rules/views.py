"""The rules of feature views."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from millrace.compile.flink_tiles import gap_of
from millrace.errors import nearest
from millrace.expressions import Expression
from millrace.faults import FaultList, is_read
from millrace.fingerprint import with_view_fingerprint
from millrace.plan import EntityPlan, FeaturePlan, Output, SourcePlan, ViewPlan
from millrace.rules.checks import Judged, check_checks
from millrace.rules.derived import Known, derived_plans
from millrace.rules.features import (
    Measures,
    check_feature_name,
    feature_plan,
    read_expression,
)
from millrace.rules.sources import Columns
from millrace.rules.values import day_date, optional_duration_ms
from millrace.rules.warnings import warnings_of
from millrace.spec import DerivedFeature, Entity, Feature, FeatureView, Source
from millrace.types import DataType


@dataclass(frozen=True)
class Scope:
    """What views may refer to.

    Attributes:
        sources: declared sources; ``columns`` and ``source_plans`` are theirs by name, the plans
            only of those without fault.
        is_complete: False if some file could not be read, so that an unknown name may be in it.
    """

    sources: Mapping[str, Source]
    columns: Mapping[str, Columns]
    source_plans: Mapping[str, SourcePlan]
    entities: Mapping[str, Entity]
    entity_plans: Mapping[str, EntityPlan]
    views: Mapping[str, FeatureView]
    is_complete: bool = True


def view_plan(view: FeatureView, scope: Scope, faults: FaultList) -> ViewPlan | None:
    """Resolve a view; None if a fault keeps it from having a meaning."""
    before = len(faults)
    _check_source(view, scope, faults)
    _check_entities(view, scope, faults)
    columns = scope.columns.get(view.source)
    where = view.where
    start = day_date(view.start, "start", where.at("start"), faults)
    row_filter = _filter(view, columns, faults)
    ttl_ms = optional_duration_ms(view.ttl, "ttl", where.at("ttl"), faults)
    freshness_ms = optional_duration_ms(view.freshness, "freshness", where.at("freshness"), faults)
    measures = Measures()
    features = _features(view, scope, columns, measures, faults)
    derived = derived_plans(Known(view, features, columns), faults)
    known: dict[str, Output] = {f.name: f for f in features}
    known |= {f.name: f for f in derived}
    check_checks(Judged(view, known, columns), faults)
    source = scope.source_plans.get(view.source)
    entities = tuple(e for name in view.entities if (e := scope.entity_plans.get(name)))
    if start is None or source is None or len(faults) > before:
        return None
    if not source.has(start):
        faults.add(
            where.at("start"),
            f"view {view.name!r} starts on {start}, and source {source.name!r} ends on {source.end}",
            "start before the end, or move the end of the source",
        )
        return None
    if len(entities) < len(view.entities) or len(features) + len(derived) < len(view.features):
        return None
    plan = ViewPlan(
        name=view.name,
        entities=entities,
        source=source,
        start=start,
        filter=row_filter,
        measures=measures.in_order(),
        features=features,
        ttl_ms=ttl_ms,
        freshness_ms=freshness_ms,
        owner=view.owner,
        tags=dict(view.tags),
        checks=view.checks,
        description=view.description,
        fingerprint="",
        is_online=view.online,
        derived=derived,
        order=tuple(f.name for f in view.features) if derived else (),
        where=where,
    )
    _check_engines(view, plan, faults)
    return with_view_fingerprint(replace(plan, warnings=warnings_of(plan)))


def _check_engines(view: FeatureView, plan: ViewPlan, faults: FaultList) -> None:
    """Refuse what an engine that the view needs cannot do: Spark for all, Flink for live ones."""
    if plan.source.stream is None or not plan.is_online:
        return
    aggregates = [f for f in view.features if isinstance(f, Feature)]
    for feature, declared in zip(plan.features, aggregates, strict=True):
        gap = gap_of(feature)
        if gap is not None:
            faults.add(
                declared.where.at("aggregate"),
                f"feature {feature.name!r}: Flink has no {feature.aggregate} of "
                f"{feature.aggregate.input}, and view {view.name!r} follows a stream: {gap.reason}",
                gap.fix,
            )


def _check_source(view: FeatureView, scope: Scope, faults: FaultList) -> None:
    if not is_read(view.source) or view.source in scope.sources:
        return
    where = view.where.at("source")
    if view.source in scope.views:
        chain = _source_cycle(view, scope.views)
        cycle = f", which is a cycle: {' -> '.join(chain)}" if chain else ""
        faults.add(
            where,
            f"view {view.name!r} reads the feature view {view.source!r}{cycle}",
            f"a view reads a source; {nearest(view.source, list(scope.sources))}",
        )
    elif scope.is_complete:
        faults.add(
            where, f"there is no source {view.source!r}", nearest(view.source, list(scope.sources))
        )


def _source_cycle(view: FeatureView, views: Mapping[str, FeatureView]) -> list[str]:
    path = [view.name]
    while path[-1] in views:
        following = views[path[-1]].source
        if following == view.name:
            return [*path, following]
        if following in path:
            break
        path.append(following)
    return []


def _check_entities(view: FeatureView, scope: Scope, faults: FaultList) -> None:
    where = view.where.at("entities" if len(view.entities) != 1 else "entity")
    if not view.entities:
        faults.add(where, f"view {view.name!r} names no entity", "add entity: …")
    seen: dict[str, str] = {}
    for name in view.entities:
        if not is_read(name):
            continue
        entity = scope.entities.get(name)
        if entity is None:
            if scope.is_complete:
                hint = nearest(name, list(scope.entities))
                faults.add(where, f"there is no entity {name!r}", hint)
            continue
        other = seen.setdefault(entity.join_key, name)
        if list(view.entities).count(name) > 1:
            faults.add(where, f"the entity {name!r} stands twice in the key", "keep one of them")
        elif other != name:
            faults.add(
                where,
                f"the entities {other!r} and {name!r} have one join key, {entity.join_key!r}",
                "keep one of them",
            )
        _check_join_key(view, entity, scope, faults)


def _check_join_key(view: FeatureView, entity: Entity, scope: Scope, faults: FaultList) -> None:
    columns, plan = scope.columns.get(view.source), scope.entity_plans.get(entity.name)
    where = view.where.at("entities" if len(view.entities) != 1 else "entity")
    if columns is None or not is_read(entity.join_key):
        return
    found: DataType | None = columns.lookup(entity.join_key)
    if columns.is_missing(entity.join_key):
        faults.add(
            where,
            f"source {view.source!r} has no column {entity.join_key!r}, the join key of "
            f"entity {entity.name!r}",
            columns.nearest(entity.join_key),
        )
    elif found is not None and plan is not None and found != plan.type:
        faults.add(
            where,
            f"the join key {entity.join_key!r} is {found} in source {view.source!r} and "
            f"{plan.type} in entity {entity.name!r} ({entity.where})",
            "give both one type",
        )


def _filter(view: FeatureView, columns: Columns | None, faults: FaultList) -> Expression | None:
    if view.filter is None:
        return None
    where = view.where.at("filter")
    found = read_expression(view.filter, "filter", where, columns, faults)
    if found is not None and found.type.kind != "bool":
        faults.add(
            where, f"filter is a {found.type}, not a condition", "compare it: amount > 0, for one"
        )
    return found


_RENAME = "rename one of the two, or remove it"
_WINDOWS_ALIKE = (
    "a window has no time zone and no max in names: write each of the two as a feature, and name it"
)


def _are_windows_alike(one: Feature | DerivedFeature, other: Feature | DerivedFeature) -> bool:
    """Tell whether two windows differ, but not in names."""
    if isinstance(one, DerivedFeature) or isinstance(other, DerivedFeature):
        return False
    return one.window != other.window and str(one.window) == str(other.window)


def _features(
    view: FeatureView,
    scope: Scope,
    columns: Columns | None,
    measures: Measures,
    faults: FaultList,
) -> tuple[FeaturePlan, ...]:
    if not view.features:
        faults.add(view.where.at("features"), f"view {view.name!r} has no features", "list them")
    elif all(isinstance(f, DerivedFeature) for f in view.features):
        faults.add(
            view.where.at("features"),
            f"view {view.name!r} has derived features alone",
            "add an aggregate that they are derived of: {aggregate: count, window: 1d}, for one",
        )
    keys = frozenset(e.join_key for n in view.entities if (e := scope.entities.get(n)) is not None)
    first: dict[str, Feature | DerivedFeature] = {}
    plans = []
    for feature in view.features:
        if is_read(feature.name) and feature.name in first:
            other = first[feature.name]
            faults.add(
                feature.where.at("name"),
                f"view {view.name!r} has a feature {feature.name!r} already, at {other.where}",
                _WINDOWS_ALIKE if _are_windows_alike(feature, other) else _RENAME,
            )
        first.setdefault(feature.name, feature)
        if isinstance(feature, DerivedFeature):
            check_feature_name(feature, keys, faults)
            continue
        plan = feature_plan(feature, keys, columns, measures, faults)
        if plan is not None:
            plans.append(plan)
    return tuple(plans)
