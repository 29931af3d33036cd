"""Which features a training set was asked for, under which names they come out.

A name is ``feature`` (unique over all views whose keys the spine has), ``view:feature`` or ``view:*``. An output column has
the bare feature name; where that is also the name of another column, a feature's or a join key, the
features among them are named ``view__feature``.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from millrace.errors import Fault, NotDeclared, SpecError, nearest
from millrace.plan import FeaturePlan, Output, Plan, ViewPlan
from millrace.references import SERVICE, FeatureReference

_WHERE = "--features"


@dataclass(frozen=True)
class RequestedView:
    """One view cut down to what was asked of it.

    Attributes:
        view: the view with the requested features, what they are made of, and no others;
            measures keep the names they have in the whole view.
        columns: output column of each of the view's ``outputs``, in the same order.
    """

    view: ViewPlan
    columns: tuple[str, ...]

    @property
    def reads_event_id(self) -> bool:
        """True where the source names events and a feature needs the name to break ties."""
        ordered = any(f.aggregate.entry.is_ordered for f in self.view.features)
        return ordered and self.view.source.event_id is not None


@dataclass(frozen=True)
class RequestedFeatures:
    """A request, resolved.

    Attributes:
        views: one entry per view, in the order first named.
        columns: all output columns, in the order asked for; a feature named twice counts once.
    """

    views: tuple[RequestedView, ...]
    columns: tuple[str, ...]

    @property
    def join_keys(self) -> tuple[str, ...]:
        """Every key column that a spine needs, in order of first use."""
        return tuple(dict.fromkeys(k for r in self.views for k in r.view.join_keys))


def request_features(
    plan: Plan, names: Sequence[str], spine_columns: Collection[str] = ()
) -> RequestedFeatures:
    """Resolve the names of features.

    Args:
        plan: everything declared.
        spine_columns: of views that share a feature name, those count whose join keys are all among
            these. A view of other entities does not make a name ambiguous.
        names: ``feature``, ``view:feature`` or ``view:*``; blanks around a name do not count.

    Raises:
        SpecError: a name means no feature or several; every such name is told, with the nearest
            valid ones or the candidates.
    """
    faults: list[Fault] = []
    chosen: dict[tuple[str, str], Output] = {}
    for name in (n.strip() for n in names):
        if not name:
            continue
        try:
            found = _meaning(plan, name, frozenset(spine_columns))
            chosen.update({(v.name, f.name): f for v, f in found})
        except SpecError as error:
            faults.extend(error.faults)
    if not faults and not chosen:
        faults.append(Fault("no feature is named", _WHERE, nearest("", _bare_names(plan))))
    if len(faults) > 1:
        raise SpecError(f"{len(faults)} of the names are no feature", where=_WHERE, faults=faults)
    if faults:
        raise SpecError.of(faults)
    return _named(plan, chosen)


def service_features(plan: Plan, service: str) -> tuple[str, ...]:
    """Return the features of a service as ``view:feature``, in declared order.

    Raises:
        NotDeclared: no such service; the nearest are named.
    """
    try:
        entries = plan.services[service].features
    except KeyError:
        raise NotDeclared(
            f"no feature service {service!r}",
            where="--service",
            fix=nearest(service, list(plan.services)) or "declare one under `feature_services:`",
        ) from None
    return tuple(f"{view}:{feature}" for view, feature in entries)


def _meaning(plan: Plan, name: str, spine_columns: frozenset[str]) -> list[tuple[ViewPlan, Output]]:
    meant = FeatureReference.parse(name)
    if meant.view is None and not meant.is_service:
        return [_bare(plan, name, spine_columns)]
    view_name = meant.view or SERVICE
    view = plan.views.get(view_name)
    if view is None:
        raise _fault(f"no feature view {view_name!r} (in {name!r})", view_name, list(plan.views))
    if meant.is_whole_view:
        return [(view, feature) for feature in view.outputs]
    known = {feature.name: feature for feature in view.outputs}
    if meant.name not in known:
        raise _fault(f"view {view_name} has no feature {meant.name!r}", meant.name, list(known))
    return [(view, known[meant.name])]


def _bare(plan: Plan, name: str, spine_columns: frozenset[str]) -> tuple[ViewPlan, Output]:
    found = [(v, f) for v, f in _all_features(plan) if f.name == name]
    found = [(v, f) for v, f in found if spine_columns.issuperset(v.join_keys)] or found
    if len(found) == 1:
        return found[0]
    if found:
        candidates = " or ".join(f"{v.name}:{f.name}" for v, f in found[:4])
        raise SpecError.of(
            [Fault(f"{len(found)} views have a feature {name!r}", _WHERE, f"say {candidates}")]
        )
    if name in plan.views:
        raise SpecError.of(
            [Fault(f"{name!r} is a view, not a feature", _WHERE, f"say {name}:* for all of it")]
        )
    raise _fault(f"no feature {name!r} in any view", name, _bare_names(plan))


def _fault(what: str, name: str, choices: Sequence[str]) -> SpecError:
    return SpecError.of([Fault(what, _WHERE, nearest(name, choices))])


def _all_features(plan: Plan) -> Iterator[tuple[ViewPlan, Output]]:
    return ((v, f) for v in plan.views.values() for f in v.outputs)


def _bare_names(plan: Plan) -> list[str]:
    return list(dict.fromkeys(f.name for _, f in _all_features(plan)))


def _column_names(plan: Plan, chosen: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the output column of each feature, all different from each other and from the keys.

    Raises:
        SpecError: two of them stay the same with their views before them: the view ``a__b`` has a
            feature ``c``, the view ``a`` a feature ``b__c``.
    """
    columns = {(view, feature): feature for view, feature in chosen}
    keys = {key for view, _ in columns for key in plan.views[view].join_keys}
    while True:
        uses = Counter([*columns.values(), *keys])
        shared = [pair for pair, column in columns.items() if uses[column] > 1]
        bare = [pair for pair in shared if columns[pair] == pair[1]]
        if not shared:
            return columns
        if not bare:
            raise SpecError.of(_clashes(columns, shared))
        # A name that is made up here may be another feature's own, which then gets its view too.
        columns |= {(view, feature): f"{view}__{feature}" for view, feature in bare}


def _clashes(
    columns: Mapping[tuple[str, str], str], shared: Sequence[tuple[str, str]]
) -> list[Fault]:
    by_column: dict[str, list[str]] = {}
    for view, feature in shared:
        by_column.setdefault(columns[view, feature], []).append(f"{view}:{feature}")
    return [
        Fault(
            f"{' and '.join(names)} would be one column, {column!r}",
            _WHERE,
            "rename one of the features, or ask for them in two training sets",
        )
        for column, names in by_column.items()
    ]


def _named(plan: Plan, chosen: dict[tuple[str, str], Output]) -> RequestedFeatures:
    columns = _column_names(plan, chosen)
    by_view: dict[str, list[Output]] = {}
    for (view, _), feature in chosen.items():
        by_view.setdefault(view, []).append(feature)
    views = tuple(
        RequestedView(
            _restricted(plan.views[name], features),
            tuple(columns[name, feature.name] for feature in features),
        )
        for name, features in by_view.items()
    )
    return RequestedFeatures(views, tuple(columns.values()))


def _restricted(view: ViewPlan, asked: Sequence[Output]) -> ViewPlan:
    features = [f for f in asked if isinstance(f, FeaturePlan)]
    reached = {f.name for f in asked}
    for derived in reversed(view.derived):
        if derived.name in reached:
            reached.update(derived.inputs)
    kept = tuple(f for f in view.derived if f.name in reached)
    features += [f for f in view.features if f.name in reached and f not in features]
    if not features:
        # Of AS_OF() alone: there are rows, and so a column, for each entity and instant.
        features = [view.features[0]]
    needed = {f.measure.name for f in features if f.measure is not None}
    return replace(
        view,
        features=tuple(features),
        measures=tuple(m for m in view.measures if m.name in needed),
        derived=kept,
        order=tuple(f.name for f in asked) if kept else (),
    )
