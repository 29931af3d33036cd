"""What is published, and what a request's entity and features mean by it.

A catalog is one publication's content, read once and never changed; a newer publication makes a
new one. The meaning of a pair (entity, features) is compiled once per catalog and kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from millrace.codec import key_tail
from millrace.errors import NotDeclared, nearest
from millrace.online.view import OnlineView
from millrace.published import PublishedView
from millrace.references import FeatureReference
from serving.errors import BadRequest, NotReady
from serving.keys import JoinKeys
from serving.requests import Reference

_MOST_KEPT = 4096


@dataclass(frozen=True)
class ServedVersion:
    """One version of a view, ready to be read.

    Attributes:
        progress_field: its field in the hash of progress.
        row_tail: what stands between hash tag and entity in the keys of its rows.
        tiles_tail: the same of its tiles.
        uploaded_ms: of a version without a stream, the instant up to which its events were
            uploaded; None if a stream feeds it.
    """

    version: str
    online: OnlineView
    progress_field: bytes
    row_tail: bytes
    tiles_tail: bytes
    uploaded_ms: int | None = None

    def progress_ms(self, of_streams: Mapping[bytes, int]) -> int | None:
        """Return up to when its events are in its values; None if that is not known."""
        return of_streams.get(self.progress_field, self.uploaded_ms)


@dataclass(frozen=True)
class ServedView:
    """A view and the versions that can be asked for.

    Attributes:
        serving: the version that answers where none is named; None while none is complete.
    """

    name: str
    entities: tuple[str, ...]
    serving: str | None
    versions: Mapping[str, ServedVersion]

    def version(self, name: str | None) -> ServedVersion:
        """Return a version by name, or the serving one.

        Raises:
            NotDeclared: there is none of that name.
            NotReady: none is named, and none is complete yet.
        """
        if name is not None and name in self.versions:
            return self.versions[name]
        if name is not None:
            raise NotDeclared(
                f"the view {self.name} has no version {name!r}",
                where=f"view {self.name}",
                fix=nearest(name, list(self.versions)),
            )
        if self.serving is None or self.serving not in self.versions:
            raise NotReady(
                f"no version of the view {self.name} is complete yet",
                where=f"view {self.name}",
                fix="millrace stream status; ask again when it serves",
            )
        return self.versions[self.serving]

    @property
    def shown(self) -> ServedVersion | None:
        """The version whose features are the view's where none is named."""
        if self.serving in self.versions:
            return self.versions[self.serving or ""]
        return list(self.versions.values())[-1] if self.versions else None


@dataclass(frozen=True)
class ViewRead:
    """What a lookup reads of one version of a view.

    Attributes:
        join_keys: place of the view's join keys among the lookup's ``key_sets``.
        places: places of the features in the view's rows.
    """

    served: ServedVersion
    join_keys: int
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LookupPlan:
    """A pair (entity, features), compiled; equal only to itself.

    Attributes:
        entity_name: as answers name it.
        join_keys: what a key must hold.
        key_sets: the distinct sets of join keys that the views need.
        reads: one per version of a view.
        fields: for each feature in the order asked, its label, its read, and its place in it.
    """

    entity_name: str
    join_keys: JoinKeys
    key_sets: tuple[JoinKeys, ...]
    reads: tuple[ViewRead, ...]
    fields: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Catalog:
    """All that is published.

    Attributes:
        views: by name.
        services: features of each, as (view, feature).
        faults: what could not be read, by view.
    """

    views: Mapping[str, ServedView] = field(default_factory=dict)
    services: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    _plans: dict[tuple[str | None, tuple[Reference, ...]], LookupPlan] = field(
        default_factory=dict, compare=False, repr=False
    )

    def lookup_plan(self, entity: str | None, features: tuple[Reference, ...]) -> LookupPlan:
        """Return what a request means.

        Args:
            entity: name of an entity, or of several by comma; None: the features say.
            features: references in the order asked.

        Raises:
            NotDeclared: no such entity, view, feature, service or version.
            BadRequest: a name that two views have, or features of entities that do not go together.
            NotReady: nothing is published, or no version of a view is complete.
        """
        asked = (entity, features)
        plan = self._plans.get(asked)
        if plan is None:
            plan = _Resolution(self, entity).plan(features)
            if len(self._plans) >= _MOST_KEPT:
                self._plans.clear()
            self._plans[asked] = plan
        return plan


def served_view(published: PublishedView) -> ServedView:
    """Make a publication ready to be read; retired versions are left out.

    Raises:
        StoreError: a serving plan is of another format.
    """
    versions = {}
    for version in published.versions:
        if version.is_fed:
            online = OnlineView.from_plan(version.plan)
            versions[version.version] = ServedVersion(
                version.version,
                online,
                f"{published.name}/{version.fingerprint}".encode(),
                key_tail("row", online.name, online.fingerprint),
                key_tail("tile", online.name, online.fingerprint),
                None if version.has_stream else version.cut_over_ms,
            )
    return ServedView(published.name, published.entities, published.serving, versions)


class _Resolution:
    """One request's references, resolved against a catalog."""

    def __init__(self, catalog: Catalog, entity: str | None) -> None:
        self._catalog = catalog
        if not catalog.views:
            raise NotReady(
                "no feature view is published",
                where="catalog",
                fix="millrace upload VIEW or millrace stream deploy VIEW",
            )
        self._entity = entity
        self._named = None if entity is None else _entity_names(catalog, entity)

    def plan(self, features: tuple[Reference, ...]) -> LookupPlan:
        """Return the compiled lookup; raises as ``Catalog.lookup_plan``."""
        fields: dict[str, tuple[str, str, str | None]] = {}
        meant = [
            (label, view, feature, version)
            for name, version in features
            for label, view, feature in self._meant(name, version)
        ]
        for label, view, feature, version in _labelled(self._catalog, meant):
            known = fields.setdefault(label, (view, feature, version))
            if known != (view, feature, version):
                raise BadRequest(
                    f"the feature {label!r} is asked for in two versions",
                    where="features",
                    fix="ask for one version at a time",
                )
        return self._compiled(fields)

    def _meant(self, name: str, version: str | None) -> Iterable[tuple[str | None, str, str]]:
        """Yield (label, view, feature) for each feature that a reference means.

        The label is None where the request does not name the feature by itself.
        """
        meant = FeatureReference.parse(name)
        if meant.is_service:
            if version is not None:
                raise BadRequest(
                    f"{name!r} is a service, and services have no version",
                    where="features",
                    fix="name the version beside a feature",
                )
            return self._of_service(meant.name)
        if meant.view is None:
            view = self._view_of(name, version)
            return [(name, view.name, name)]
        view = self._view(meant.view)
        names = self._features(view, version)
        if meant.is_whole_view:
            return [(None, view.name, n) for n in names]
        if meant.name not in names:
            raise _no_feature(name, meant.name, [f"{view.name}:{n}" for n in names], view.name)
        return [(name, view.name, meant.name)]

    def _of_service(self, name: str) -> list[tuple[str | None, str, str]]:
        services = self._catalog.services
        if name not in services:
            raise NotDeclared(
                f"no feature service {name!r}",
                where="features",
                fix=nearest(name, list(services)),
            )
        views = [self._view(view) for view, _ in services[name]]
        needed = list(dict.fromkeys(entity for view in views for entity in view.entities))
        lacking = [e for e in needed if self._named is not None and e not in self._named]
        if lacking:
            # A model's input never shrinks in silence.
            raise BadRequest(
                f"the service {name!r} has features of {', '.join(lacking)} too, and the request is "
                f"of {self._entity} alone",
                where="entity_name",
                fix=f"ask with the entity {','.join(needed)!r}, and keys that are objects with "
                + " and ".join(dict.fromkeys(k for view in views for k in _join_keys(view))),
            )
        return [(None, view, feature) for view, feature in services[name]]

    def _view(self, name: str) -> ServedView:
        views = self._catalog.views
        if name in views:
            return views[name]
        if any(name == view for entries in self._catalog.services.values() for view, _ in entries):
            raise NotDeclared(
                f"the view {name!r} is declared, and not deployed",
                where="features",
                fix=not_deployed(name),
            )
        raise NotDeclared(
            f"no feature view {name!r} is published",
            where="features",
            fix=nearest(name, list(views)),
        )

    def _view_of(self, feature: str, version: str | None) -> ServedView:
        """Return the one view that has a feature of a bare name."""
        views = self._catalog.views.values()
        near = list(views) if self._named is None else self._near(self._named)
        found = [v for v in near if feature in self._features(v, version)]
        # A view of fewer entities than were named does not make a clear name ambiguous.
        found = [v for v in found if set(v.entities) == set(self._named or ())] or found
        if not found and self._named is not None:
            # A composite view may be asked for by one of its entities, with keys as objects.
            wider = [v for v in views if set(self._named) <= set(v.entities)]
            found = [v for v in wider if feature in self._features(v, version)]
        if not found:
            known = list(dict.fromkeys(n for v in near for n in self._features(v, None)))
            raise _no_feature(feature, feature, known, self._entity or "")
        if len(found) > 1:
            both = " or ".join(repr(f"{v.name}:{feature}") for v in found)
            raise BadRequest(
                f"the feature {feature!r} is in {len(found)} views", where="features", fix=both
            )
        return found[0]

    def _near(self, entities: Sequence[str]) -> list[ServedView]:
        """The views whose entities are all among these."""
        return [v for v in self._catalog.views.values() if set(v.entities) <= set(entities)]

    def _features(self, view: ServedView, version: str | None) -> list[str]:
        return _feature_names(view, version)

    def _compiled(self, fields: Mapping[str, tuple[str, str, str | None]]) -> LookupPlan:
        reads: dict[tuple[str, str], tuple[ServedVersion, list[int]]] = {}
        placed: list[tuple[str, tuple[str, str], int]] = []
        for label, (view_name, feature, version) in fields.items():
            served = self._fitting(self._catalog.views[view_name]).version(version)
            names = [f.name for f in served.online.features]
            if feature not in names:
                known = [f"{view_name}:{n}" for n in names]
                raise _no_feature(label, feature, known, f"{view_name} {served.version}")
            key = (view_name, served.version)
            _, places = reads.setdefault(key, (served, []))
            placed.append((label, key, len(places)))
            places.append(names.index(feature))
        join_keys, entity_name = self._keys([served for served, _ in reads.values()])
        key_sets = list(dict.fromkeys(served.online.join_keys for served, _ in reads.values()))
        order = list(reads)
        return LookupPlan(
            entity_name,
            join_keys,
            tuple(key_sets),
            tuple(
                ViewRead(served, key_sets.index(served.online.join_keys), tuple(places))
                for served, places in reads.values()
            ),
            tuple((label, order.index(key), place) for label, key, place in placed),
        )

    def _fitting(self, view: ServedView) -> ServedView:
        """Return the view, if its entities go with those that were named."""
        named, own = set(self._named or view.entities), set(view.entities)
        if not (own <= named or named <= own):
            raise BadRequest(
                f"the view {view.name} is of {','.join(view.entities)}, not of {self._entity}",
                where="entity_name",
                fix=f"ask with the entity {','.join(view.entities)!r}",
            )
        return view

    def _keys(self, reads: Sequence[ServedVersion]) -> tuple[JoinKeys, str]:
        """Return what a key must hold, and the name of its entities."""
        pairs = {
            e: k for s in reads for e, k in zip(s.online.entities, s.online.join_keys, strict=True)
        }
        if self._named is not None:
            known = {
                e: k
                for v in self._catalog.views.values()
                if v.shown is not None
                for e, k in zip(v.entities, v.shown.online.join_keys, strict=True)
            }
            pairs = {e: pairs.get(e) or known[e] for e in dict.fromkeys((*self._named, *pairs))}
        elif not any(set(s.online.entities) == set(pairs) for s in reads):
            raise BadRequest(
                f"the features are of several entities: {', '.join(pairs)}",
                where="features",
                fix="ask for the features of one entity at a time",
            )
        return tuple(dict.fromkeys(pairs.values())), ",".join(pairs)


def not_deployed(view: str) -> str:
    """Return how a view that is declared comes to be served."""
    return f"millrace stream deploy {view}; without a stream: millrace upload {view}"


_Meant = tuple[str | None, str, str, str | None]


def _labelled(
    catalog: Catalog, meant: Sequence[_Meant]
) -> Iterable[tuple[str, str, str, str | None]]:
    """Yield what a request means with the names its answer has.

    A feature that stands for itself keeps the name it was asked by. The others have their bare one,
    unless another view of the same entities, or another one in this request, has it too. So views of
    other entities that come to be published rename nothing.
    """
    taken: dict[str, set[str]] = {}
    for label, view, feature, _ in meant:
        taken.setdefault(label or feature, set()).add(view)
    for label, view, feature, version in meant:
        served = catalog.views[view]
        twins = [
            other
            for other in catalog.views.values()
            if set(other.entities) == set(served.entities)
            and feature in _feature_names(other, None)
        ]
        is_clear = twins == [served] and taken[feature] == {view} if label is None else True
        yield label or (feature if is_clear else f"{view}:{feature}"), view, feature, version


def _feature_names(view: ServedView, version: str | None) -> list[str]:
    served = view.shown if version is None else view.versions.get(version, view.shown)
    return [] if served is None else [feature.name for feature in served.online.features]


def _join_keys(view: ServedView) -> list[str]:
    return [] if view.shown is None else [name for name, _ in view.shown.online.join_keys]


def _entity_names(catalog: Catalog, entity: str) -> tuple[str, ...]:
    known = list(dict.fromkeys(e for v in catalog.views.values() for e in v.entities))
    names = tuple(dict.fromkeys(part.strip() for part in entity.split(",")))
    for name in names:
        if name not in known:
            raise NotDeclared(f"no entity {name!r}", where="entity_name", fix=nearest(name, known))
    return names


def _no_feature(asked: str, feature: str, known: Sequence[str], where: str) -> NotDeclared:
    close = nearest(asked, known)
    return NotDeclared(f"no feature {feature!r}", where=where or "features", fix=close)
