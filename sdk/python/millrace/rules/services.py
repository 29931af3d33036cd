"""The rules of feature services."""

from collections.abc import Mapping

from millrace.errors import nearest
from millrace.faults import FaultList, is_read
from millrace.plan import ServicePlan
from millrace.references import ALL, SERVICE, FeatureReference
from millrace.spec import FeatureService, FeatureView, Location


def service_plan(
    service: FeatureService,
    views: Mapping[str, FeatureView],
    services: Mapping[str, FeatureService],
    faults: FaultList,
    *,
    is_complete: bool,
) -> ServicePlan:
    """Resolve a service's entries to (view, feature), a repeated one only once.

    ``is_complete`` is False if some file could not be read, so that an unknown name may be in it.
    """
    where = service.where.at("features")
    if not service.features:
        faults.add(where, f"service {service.name!r} has no features", "list view:feature entries")
    found: dict[tuple[str, str], None] = {}
    for entry in service.features:
        if not is_read(entry):
            continue
        if _names_service(entry, services, views):
            _refuse_service(service, FeatureReference.parse(entry).name, services, faults)
            continue
        for pair in _resolve(entry, where, views, faults, is_complete=is_complete):
            found.setdefault(pair)
    return ServicePlan(service.name, tuple(found), service.description, service.where)


def _resolve(
    entry: str,
    where: Location,
    views: Mapping[str, FeatureView],
    faults: FaultList,
    *,
    is_complete: bool,
) -> list[tuple[str, str]]:
    meant = FeatureReference.parse(entry)
    if meant.view is None and not meant.is_service:
        return _bare(entry, where, views, faults, is_complete=is_complete)
    view_name, feature = meant.view or SERVICE, meant.name
    view = views.get(view_name)
    if view is None:
        if is_complete:
            faults.add(
                where, f"{entry!r}: there is no view {view_name!r}", nearest(view_name, list(views))
            )
        return []
    names = [f.name for f in view.features if is_read(f.name)]
    if feature == ALL:
        return [(view_name, name) for name in names]
    if feature not in names:
        if _is_wholly_read(view):
            hint = nearest(feature, names)
            faults.add(where, f"{entry!r}: view {view_name!r} has no feature {feature!r}", hint)
        return []
    return [(view_name, feature)]


def _bare(
    name: str,
    where: Location,
    views: Mapping[str, FeatureView],
    faults: FaultList,
    *,
    is_complete: bool,
) -> list[tuple[str, str]]:
    pairs = [(v.name, f.name) for v in views.values() for f in v.features]
    found = list(dict.fromkeys(pair for pair in pairs if pair[1] == name))
    if len(found) > 1:
        choices = [f"{view}:{feature}" for view, feature in found]
        faults.add(where, f"{name!r} is a feature of {len(found)} views", _or(choices))
        return []
    if not found and name in views:
        faults.add(where, f"{name!r} is a view, not a feature", f"all its features are {name}:*")
    elif not found and is_complete and all(map(_is_wholly_read, views.values())):
        known = list(dict.fromkeys(feature for _, feature in pairs))
        faults.add(where, f"no view has a feature {name!r}", nearest(name, known))
    return found


def _or(choices: list[str]) -> str:
    shown = " or ".join(choices[:6])
    return f"write {shown}" + (", …" if len(choices) > 6 else "")  # noqa: PLR2004 - a short list


def _is_wholly_read(view: FeatureView) -> bool:
    return all(is_read(feature.name) for feature in view.features)


def _names_service(
    entry: str, services: Mapping[str, FeatureService], views: Mapping[str, FeatureView]
) -> bool:
    if FeatureReference.parse(entry).is_service:
        return SERVICE not in views
    is_feature = any(f.name == entry for v in views.values() for f in v.features)
    return entry in services and not is_feature


def _refuse_service(
    service: FeatureService, other: str, services: Mapping[str, FeatureService], faults: FaultList
) -> None:
    fix = "a service lists features of views: view:feature or view:*"
    cycle = _cycle(service.name, other, services)
    what = f"service {service.name!r} names the service {other!r}"
    if cycle:
        what += f", which is a cycle: {' -> '.join(cycle)}"
    faults.add(service.where.at("features"), what, fix)


def _cycle(start: str, to: str, services: Mapping[str, FeatureService]) -> list[str]:
    """Return the way from a service over another back to itself; empty if there is none."""
    stack, seen = [[start, to]], {to}
    while stack:
        path = stack.pop()
        if path[-1] == start:
            return path
        reached = services.get(path[-1])
        for entry in reached.features if reached is not None else ():
            name = FeatureReference.parse(entry).name
            if name in services and (name == start or name not in seen):
                seen.add(name)
                stack.append([*path, name])
    return []
