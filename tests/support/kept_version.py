"""What an earlier version left behind, unpacked, and what the oracle says of it: tests/stored."""

import base64
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from deltalake import DeltaTable

from millrace.aggregates import Place
from millrace.codec import tile_field
from millrace.expressions import evaluate
from millrace.packing import EntityKeys
from millrace.plan import FeaturePlan, Plan, ViewPlan
from millrace.published import PLANS_KEY, PublishedVersion, PublishedView
from millrace.tiles import TILE_START, Tile, TileEvent, build_tile, tile_start_ms
from resources.declarations import load_valid_plan
from resources.settings import CHECKOUT, Settings, settings_from_env
from tests import reference
from tests.support.oracle import oracle_feature

STORED = CHECKOUT / "tests" / "stored"
ARCHIVE = STORED / "7c62cda.tar.xz"
VIEWS = ("kept_spend", "kept_pairs")
BATCH_END_MS = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp() * 1000)
"""The lake's tiles and features end here; the stream goes on."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """One version's remains in a folder of the test's own.

    Attributes:
        settings: its lake, its raw data, its home, the declarations.
        rows: of ``events/kept_payments``; instants are epoch milliseconds.
    """

    folder: Path
    settings: Settings
    plan: Plan
    rows: Sequence[Row]

    @classmethod
    def unpack(cls, folder: Path) -> "Kept":
        """Unpack the archive and load the declarations by this version."""
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        env = {"MILLRACE_HOME": str(folder), "MILLRACE_DATA": str(folder)}
        settings = replace(
            settings_from_env(env), lake=str(folder / "lake"), views=(STORED / "views",)
        )
        plan, faults = load_valid_plan(settings)
        assert not faults
        table = DeltaTable(f"{settings.lake}/events/kept_payments").to_pyarrow_table()
        return cls(folder, settings, plan, [_as_meant(row) for row in table.to_pylist()])

    def read(self, name: str) -> Any:
        """Return a JSON document that was kept."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def store(self) -> dict[bytes, Any]:
        """Return the keys of the store with their strings, or their hashes."""
        return {
            base64.b64decode(key): base64.b64decode(content)
            if isinstance(content, str)
            else {base64.b64decode(k): base64.b64decode(v) for k, v in content.items()}
            for key, content in self.read("store.json").items()
        }

    def published(self, view: str) -> PublishedVersion:
        """Return the one version that was published of a view."""
        text = self.store()[PLANS_KEY][f"view:{view}".encode()]
        (version,) = PublishedView.from_json(text.decode()).versions
        return version

    def records(self, view: ViewPlan) -> list[dict[str, Any]]:
        """Return the tile topic's records, with their partition, offset and value."""
        records = self.read("tiles.json")[self.published(view.name).tile_topic]
        return [{**one, "value": base64.b64decode(one["value"])} for one in records]

    def keys(self, view: ViewPlan) -> dict[tuple[Any, ...], bytes]:
        """Return the key of each entity's tiles."""
        join_keys = [(e.join_key, e.type) for e in view.entities]
        find = EntityKeys(view.name, view.fingerprint, join_keys).find
        entities = {tuple(row[k] for k in view.join_keys) for row in self.rows}
        return {entity: find(entity)[1] for entity in entities if None not in entity}

    def expected(
        self,
        view: ViewPlan,
        feature: FeaturePlan,
        entity: tuple[Any, ...],
        q_ms: int,
        *,
        also: Sequence[Row] = (),
        hindsight: bool = True,
    ) -> object:
        """Return a value by the reference over the events of the lake, and others."""
        events = [_event(view, feature, r) for r in [*self.rows, *also] if _counts(view, r)]
        asked = oracle_feature(feature)
        return reference.value(
            events, asked, entity, q_ms, hindsight=hindsight, start_ms=view.start_ms
        )


def tiles_today(view: ViewPlan, rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[int, Tile]]:
    """Return the tiles that this version makes of rows, by entity and start."""
    held: dict[tuple[Any, ...], dict[int, list[TileEvent]]] = {}
    for row in rows:
        if not _counts(view, row):
            continue
        measures = {m.name: evaluate(m.expression, row) for m in view.measures}
        place = Place(row["_event_ms"], row["_ingest_ms"], row["payment_id"])
        by_start = held.setdefault(tuple(row[k] for k in view.join_keys), {})
        start_ms = tile_start_ms(row["_event_ms"], view.tile_hop_ms)
        by_start.setdefault(start_ms, []).append(TileEvent(place, measures))
    return {
        entity: {start_ms: build_tile(view, events) for start_ms, events in by_start.items()}
        for entity, by_start in held.items()
    }


def record_of(view: ViewPlan, entity: tuple[Any, ...], start_ms: int, tile: Tile) -> bytes:
    """Return a tile as Flink writes it into the tile topic."""
    columns = {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in tile.items()}
    record = {**dict(zip(view.join_keys, entity, strict=True)), TILE_START: start_ms, **columns}
    return msgspec.json.Encoder(decimal_format="number").encode(record)


def is_fine(field: bytes) -> bool:
    """Tell whether a tile's field is of the days that the stream alone has."""
    return field >= tile_field(BATCH_END_MS)


def _counts(view: ViewPlan, row: Row) -> bool:
    return view.filter is None or evaluate(view.filter, row) is True


def _event(view: ViewPlan, feature: FeaturePlan, row: Row) -> reference.Event:
    value = None if feature.measure is None else evaluate(feature.measure.expression, row)
    entity = tuple(row[k] for k in view.join_keys)
    return reference.Event(entity, row["_event_ms"], row["_ingest_ms"], value, row["payment_id"])


def _as_meant(row: Row) -> Row:
    return {name: as_ms(value) for name, value in row.items()}


def as_ms(value: Any) -> Any:
    """Return an instant as the language has it, and all else as it is."""
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value
