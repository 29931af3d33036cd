"""What is published of a view: which versions there are, where each stands, and how to serve it.

A publication lives in the online store beside the values it speaks of. Server and writer follow it
and know nothing else of a view: no declarations, no feature code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from millrace.errors import NotDeclared, StoreError, nearest

PLANS_KEY = b"m1:plans"
"""Hash of the publications: ``view:<name>`` and ``services``."""

PROGRESS_KEY = b"m1:progress"
"""Hash of how far the writer has come: ``<view>/<fingerprint>``."""

VersionState = Literal["building", "live", "retired"]
"""Being filled; served by name or by default; no longer fed, its keys wait to be dropped."""


@dataclass(frozen=True)
class PublishedVersion:
    """One version of a view.

    Attributes:
        version: ``v1``, ``v2``, … by lake.
        fingerprint: the meaning; 16 hex digits.
        plan: the serving plan, see ``millrace.compile.serving``.
        tile_topic: topic of its tiles.
        source_topic: topic of the events it counts; None for a version that is uploaded alone.
        flink_group: consumer group of its Flink job on the source topic; empty without one.
        state: see ``VersionState``.
        cut_over_ms: the day edge before which the store holds batch tiles; None: none uploaded.
        sealed_before_ms: tiles that start before it were coarsened, and take no more stream tiles.
        published_at_ms: when the version was first published.
    """

    version: str
    fingerprint: str
    plan: Mapping[str, Any]
    tile_topic: str
    source_topic: str | None
    flink_group: str
    state: VersionState
    cut_over_ms: int | None
    sealed_before_ms: int | None
    published_at_ms: int

    @property
    def is_fed(self) -> bool:
        """True while stream and batch tiles of the version are still stored."""
        return self.state != "retired"

    @property
    def has_stream(self) -> bool:
        """True if a stream feeds it beside its uploads."""
        return self.source_topic is not None


@dataclass(frozen=True)
class PublishedView:
    """A view and its versions, oldest first.

    Attributes:
        entities: names of its entities, in declared order.
        serving: the version that answers where none is named; None while none is complete.
    """

    name: str
    entities: tuple[str, ...]
    serving: str | None
    versions: tuple[PublishedVersion, ...]

    def version(self, name: str) -> PublishedVersion:
        """Return a version by its name.

        Raises:
            NotDeclared: there is none of that name; the nearest are named.
        """
        for candidate in self.versions:
            if candidate.version == name:
                return candidate
        raise NotDeclared(
            f"no version {name!r} is published",
            where=f"view {self.name}",
            fix=nearest(name, [v.version for v in self.versions]),
        )

    def to_json(self) -> str:
        """Return the publication as ``from_json`` reads it; the same text for the same content."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote; fields that only a newer build knows are passed over.

        Raises:
            StoreError: the text is no publication.
        """
        try:
            document = json.loads(text)
            return cls(
                name=document["name"],
                entities=tuple(document["entities"]),
                serving=document["serving"],
                versions=tuple(_version(entry) for entry in document["versions"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"a publication cannot be read: {error!r}",
                where=PLANS_KEY.decode(),
                fix="publish the view again: millrace stream deploy VIEW",
            ) from error


def _version(entry: Mapping[str, Any]) -> PublishedVersion:
    version = PublishedVersion(**{f.name: entry[f.name] for f in fields(PublishedVersion)})
    if version.state not in get_args(VersionState):
        raise ValueError(f"a version cannot be {version.state!r}")
    return version
