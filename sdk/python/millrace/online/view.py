"""One version of a published view: tiles into rows, rows into answers.

Everything comes from the serving plan, a document; no declaration is needed. Nothing here reads a
clock or a store.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from millrace.aggregates import AGGREGATES
from millrace.codec import Packed, read_tile_fields, tile_field
from millrace.compile.serving import MERGED_AT, NEWEST_IN_WINDOW, OVER_LIMIT, codec_of
from millrace.durations import DAY_MS
from millrace.errors import StoreError
from millrace.online.answers import Answer, Status
from millrace.online.deriving import Derivation, OnlineDerived, derived_of
from millrace.online.folding import HeldTiles
from millrace.online.merging import Span, aggregate_of, groups_of, next_change_ms, span_of
from millrace.online.tile_reading import Row, TileReader
from millrace.tiles import FIRST_EVENT
from millrace.types import DataType, parse_type
from millrace.values.plain import from_plain
from millrace.windows import read_window

TILE_FIELD_BYTES = 8
"""Length of the fields of a tiles hash that are tiles; a shorter one is the store's own affair."""

CLOCK_MARGIN_MS = 2 * DAY_MS
"""Tiles are dropped only when they are out of reach by this much, as clocks may be wrong."""

_MOST_DERIVATIONS = 1024


class OnlineFeature(NamedTuple):
    """A feature that is an aggregate, as an answer needs it.

    Attributes:
        window: place of its window among the view's distinct ones.
        ts_slot: place in the row of its own newest event; None: the row's newest, if in the window.
        empty: the value of a window without events, and where a value is null.
        is_age: the row has an instant, and the value is the time from it to the query.
        over_slot: place in the row of whether its window holds too much to have a value; None: it
            always has one.
    """

    name: str
    type: DataType
    window: int
    ts_slot: int | None
    empty: Any
    is_age: bool = False
    over_slot: int | None = None


class OnlineView:
    """Merges and answers for one version of a view.

    Attributes:
        name: of the view.
        fingerprint: of the version; every key and packed value carries it.
        entities: names, in the order of the join keys.
        join_keys: name and type of each.
        features: in declared order; the values of those that are aggregates stand in a row.
        freshness_ms: the view's promise; None for none.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.tiles = codec_of(document, "tile")
        self.rows = codec_of(document, "row")
        self.name: str = document["view"]
        self.fingerprint: str = document["fingerprint"]
        self.entities = tuple(key["entity"] for key in document["join_keys"])
        self.join_keys = tuple((k["name"], parse_type(k["type"])) for k in document["join_keys"])
        self.ttl_ms: int | None = document["ttl_ms"]
        self.freshness_ms: int | None = document["freshness_ms"]
        self._start_ms: int = document["start_ms"]
        listed = document["features"]
        self._windows = list(dict.fromkeys(read_window(feature["window"]) for feature in listed))
        kept = {slot.name: place for place, slot in enumerate(self.tiles.slots)}
        slots = {slot.name: place for place, slot in enumerate(self.rows.slots)}
        over = [slots.get(feature["name"] + OVER_LIMIT) for feature in listed]
        tile_slots = [slot.name for slot in self.tiles.slots]
        self._groups = groups_of(listed, self._windows, tile_slots, over)
        read = {column for group in self._groups for column in group.columns}
        first_event = kept.get(FIRST_EVENT)
        columns = sorted(read if first_event is None else read | {first_event})
        self._reader = TileReader(self.tiles, columns)
        self._no_rows = dict.fromkeys(columns, ())
        self._first_event = None if first_event is None else columns.index(first_event)
        self._merged_at = slots[MERGED_AT]
        self._aggregates = tuple(
            OnlineFeature(
                feature["name"],
                parse_type(feature["type"]),
                self._windows.index(read_window(feature["window"])),
                slots.get(feature["name"] + NEWEST_IN_WINDOW),
                from_plain(feature["empty"], parse_type(feature["type"])),
                AGGREGATES[feature["aggregate"]].is_age,
                over_slot,
            )
            for feature, over_slot in zip(listed, over, strict=True)
        )
        # A default of its own, that is: what an aggregate says of no events stands there already.
        self._defaults = [
            (place, feature.empty)
            for place, (feature, one) in enumerate(zip(self._aggregates, listed, strict=True))
            if feature.empty != aggregate_of(one).empty and not feature.is_age
        ]

        self._ages = {
            place: feature.empty for place, feature in enumerate(self._aggregates) if feature.is_age
        }
        self._over = {
            place: feature.over_slot
            for place, feature in enumerate(self._aggregates)
            if feature.over_slot is not None
        }
        self._derived = derived_of(document)
        self._derivations: dict[tuple[int, ...], Derivation] = {}
        self.features: tuple[OnlineFeature | OnlineDerived, ...] = self._aggregates
        if self._derived:
            by_name = {f.name: f for f in self._aggregates} | {f.name: f for f in self._derived}
            self.features = tuple(by_name[name] for name in document["order"])

    @classmethod
    def from_plan(cls, document: Mapping[str, Any]) -> "OnlineView":
        """Return the view of a published serving plan.

        Raises:
            StoreError: the document, or the codec it was written for, is of another version, or
                something is missing from it.
        """
        try:
            return cls(document)
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(
                f"the serving plan cannot be read: {error!r}",
                where=f"serving plan of {document.get('view')}",
                fix="publish the view again",
            ) from error

    def merge(self, tiles: Mapping[bytes, bytes], as_of_ms: int) -> Packed:
        """Return the row of an entity at an instant.

        Args:
            tiles: the entity's hash as stored; fields that are no tiles are passed over.
            as_of_ms: the instant; after the newest event in the tiles, for a tile is never cut.

        Returns:
            The values of all features that are aggregates, the newest event, and the instant from which time alone
            may change a value or a ``ts``: a tile leaves a tail, or enters a window in the past.

        Raises:
            StoreError: a tile is broken, or of another version.
        """
        fields = [field for field in sorted(tiles) if len(field) == TILE_FIELD_BYTES]
        starts = read_tile_fields(fields)
        stored = [tiles[field] for field in fields]
        rows: dict[int, Row] = {}

        def edges(place: int) -> tuple[int, int]:
            """Return the first and the last event of a tile; without sessions nobody asks for the first."""
            newest_ms = self.tiles.event_ms(stored[place]) or 0
            if self._first_event is None:
                return newest_ms, newest_ms
            if place not in rows:
                (rows[place],), _ = self._reader.rows([stored[place]])
            return rows[place][self._first_event], newest_ms

        spans = [span_of(w, as_of_ms, self._start_ms, starts, edges) for w in self._windows]
        held, moved = self._held(stored, spans)
        values: list[Any] = [None] * len(self.rows.slots)
        shortest = sorted(range(len(spans)), key=lambda window: -spans[window][0])
        for group in self._groups:
            group.merge_into(values, moved, shortest, held)
        for place, default in self._defaults:
            if values[place] is None:
                values[place] = default
        for feature in self._aggregates:
            if feature.ts_slot is not None:
                first, end = spans[feature.window]
                if first < end:
                    values[feature.ts_slot] = self.tiles.event_ms(stored[end - 1])
        values[self._merged_at] = as_of_ms
        changes = [
            next_change_ms(window, span, as_of_ms, starts, edges)
            for window, span in zip(self._windows, spans, strict=True)
        ]
        return Packed(
            tuple(values),
            # Also of a tile that left every window: it says how old the entity is.
            event_ms=self.tiles.event_ms(stored[-1]) if stored else None,
            valid_until_ms=min((c for c in changes if c is not None), default=None),
        )

    def _held(
        self, stored: Sequence[bytes], spans: Sequence[Span]
    ) -> tuple[HeldTiles, Sequence[Span]]:
        """Return the tiles that some window holds, and the windows' spans among these."""
        runs: list[Span] = []
        for first, end in sorted(set(spans)):
            if runs and first <= runs[-1][1]:
                runs[-1] = runs[-1][0], max(runs[-1][1], end)
            elif first < end:
                runs.append((first, end))
        held: list[bytes] = []
        begins: list[int] = []
        shifts: list[int] = []
        for first, end in runs:
            begins.append(first)
            shifts.append(first - len(held))
            held += stored[first:end]
        columns: Mapping[int, Sequence[Any]] = self._no_rows
        is_full = False
        if held and self._reader.columns:
            rows, is_full = self._reader.rows(held)
            columns = dict(zip(self._reader.columns, zip(*rows, strict=True), strict=True))
        among = []
        for first, end in spans:
            shift = shifts[bisect_right(begins, first) - 1] if first < end else first
            among.append((first - shift, max(first, end) - shift))
        return HeldTiles(self.tiles, columns, held, is_full), among

    def newest_ms(self, tiles: Mapping[bytes, bytes]) -> int | None:
        """Return the event time of the newest event in an entity's tiles; None without a tile.

        Raises:
            StoreError: the newest tile is broken, or of another version.
        """
        newest = _newest_field(tiles)
        return self.tiles.event_ms(tiles[newest]) if newest else None

    @property
    def merged_at(self) -> int:
        """Place in a row of the first instant that it tells of."""
        return self._merged_at

    def newest_from_ms(self, as_of_ms: int) -> list[int | None]:
        """Return of each window from when on a newest event is in it; None: always."""
        return [window.newest_from_ms(as_of_ms) for window in self._windows]

    def plain(self, places: Sequence[int]) -> list[tuple[int, int, int | None]] | None:
        """Return place in the row, window and place of the ``ts`` of each of these features.

        None if one of them needs more than its value in the row: it is an age, may be over its
        limit, or is derived.
        """
        by_name = {feature.name: place for place, feature in enumerate(self._aggregates)}
        asked = [by_name.get(self.features[place].name) for place in places]
        if any(place is None or place in self._ages or place in self._over for place in asked):
            return None
        return [
            (place, self._aggregates[place].window, self._aggregates[place].ts_slot)
            for place in asked
            if place is not None
        ]

    def is_late(self, as_of_ms: int, progress_ms: int | None) -> bool:
        """Say whether the promise of freshness is broken at an instant.

        Args:
            as_of_ms: the instant.
            progress_ms: up to when the pipeline has worked; None if that is not known.
        """
        return self.freshness_ms is not None and (
            progress_ms is None or as_of_ms - progress_ms > self.freshness_ms
        )

    def earliest_ms(self, row: Packed) -> int:
        """Return the first instant a row tells of: it knows nothing of what had left before."""
        merged_at_ms: int = row.values[self._merged_at]
        return merged_at_ms

    def holds(self, row: Packed, as_of_ms: int) -> bool:
        """Say whether a row tells of an instant; if not, its tiles must be merged again."""
        until = row.valid_until_ms
        return self.earliest_ms(row) <= as_of_ms and (until is None or as_of_ms < until)

    def answer(
        self,
        row: Packed,
        as_of_ms: int,
        progress_ms: int | None,
        places: Sequence[int] | None = None,
    ) -> list[Answer]:
        """Return what a row says at an instant; see ``at`` and ``Moment.answer``."""
        return self.at(as_of_ms, progress_ms, places).answer(row)

    def at(
        self, as_of_ms: int, progress_ms: int | None, places: Sequence[int] | None = None
    ) -> "Moment":
        """Return what answers for any row of the view at an instant.

        Args:
            as_of_ms: the instant.
            progress_ms: up to when the pipeline has worked; None if that is not known, and then a
                promise of freshness is not kept.
            places: which features, by place; None for all.
        """
        derivation = self._derivation(places) if self._derived else None
        asked: Sequence[int] = range(len(self._aggregates)) if places is None else places
        if derivation is not None:
            asked = derivation.places
        return Moment(
            as_of_ms,
            self.newest_from_ms(as_of_ms),
            [
                (place, self._aggregates[place].window, self._aggregates[place].ts_slot)
                for place in asked
            ],
            [(i, self._ages[place]) for i, place in enumerate(asked) if place in self._ages]
            if self._ages
            else (),
            [(i, self._over[place]) for i, place in enumerate(asked) if place in self._over]
            if self._over
            else (),
            None if self.ttl_ms is None else as_of_ms - self.ttl_ms,
            "STALE" if self.is_late(as_of_ms, progress_ms) else "PRESENT",
            derivation,
        )

    def absent(self, as_of_ms: int, places: Sequence[int] | None = None) -> list[Answer]:
        """Return what is said at an instant of an entity without a tile and a row.

        Counts are 0, the rest null, or what a feature has by default, and what is derived of these.
        """
        derivation = self._derivation(places) if self._derived else None
        asked: Sequence[int] = range(len(self._aggregates)) if places is None else places
        if derivation is not None:
            asked = derivation.places
        answers: list[Answer] = [
            (self._aggregates[place].empty, None, "NOT_FOUND") for place in asked
        ]
        if derivation is None:
            return answers
        found = derivation.complete(answers, as_of_ms, lambda _: (None, "NOT_FOUND"))
        return [(value, None, "NOT_FOUND") for value, _, _ in found]

    def _derivation(self, places: Sequence[int] | None) -> Derivation:
        asked = tuple(range(len(self.features)) if places is None else places)
        found = self._derivations.get(asked)
        if found is None:
            names = [self.features[place].name for place in asked]
            found = Derivation.of(names, [f.name for f in self._aggregates], self._derived)
            if len(self._derivations) >= _MOST_DERIVATIONS:
                self._derivations.clear()
            self._derivations[asked] = found
        return found

    def out_of_reach(self, tiles: Mapping[bytes, bytes], as_of_ms: int) -> list[bytes]:
        """Return the tile fields that no feature will ever look at again, but for the newest.

        The newest stays, so that an entity once known is not forgotten.
        """
        tails = [window.bounds(as_of_ms)[0] for window in self._windows]
        if None in tails:
            return []
        last = tile_field(min(tail for tail in tails if tail is not None) - CLOCK_MARGIN_MS)
        fields = [field for field in tiles if field < last and len(field) == TILE_FIELD_BYTES]
        newest = _newest_field(tiles) if fields else b""
        return [field for field in fields if field != newest]


def _newest_field(tiles: Mapping[bytes, bytes]) -> bytes:
    """Return the field of the newest tile; empty if there is none."""
    newest = max(tiles, default=b"")
    if len(newest) != TILE_FIELD_BYTES:
        newest = max((field for field in tiles if len(field) == TILE_FIELD_BYTES), default=b"")
    return newest


class Moment:
    """An instant at which rows are asked, with all that does not differ between them."""

    def __init__(
        self,
        as_of_ms: int,
        tails_ms: Sequence[int | None],
        fields: Sequence[tuple[int, int, int | None]],
        ages: Sequence[tuple[int, Any]],
        over: Sequence[tuple[int, int]],
        oldest_ms: int | None,
        fresh: Status,
        derivation: Derivation | None,
    ) -> None:
        self._as_of_ms = as_of_ms
        self._tails_ms = tails_ms
        self._fields = fields
        self._ages = ages
        self._over = over
        self._oldest_ms = oldest_ms
        self._fresh = fresh
        self._derivation = derivation

    def answer(self, row: Packed) -> list[Answer]:
        """Return what a row says; the instant must be one that it holds for.

        Returns:
            One answer per feature, in the order asked.
        """
        values, newest_ms = row.values, row.event_ms
        # By window: the newest event in it, and what a value of that age is called.
        aged = [
            self._aged(
                newest_ms
                if newest_ms is not None and (tail_ms is None or newest_ms >= tail_ms)
                else None
            )
            for tail_ms in self._tails_ms
        ]
        answers: list[Answer] = []
        for place, window, ts_slot in self._fields:
            value = values[place]
            ts_ms, status = aged[window] if ts_slot is None else self._aged(values[ts_slot])
            answers.append((value, ts_ms, "NULL_VALUE" if value is None else status))
        for i, empty in self._ages:
            since_ms, ts_ms, status = answers[i]
            if since_ms is not None:
                answers[i] = (self._as_of_ms - since_ms, ts_ms, status)
            elif empty is not None:
                ts_slot, window = self._fields[i][2], self._fields[i][1]
                aged_ms = aged[window] if ts_slot is None else self._aged(values[ts_slot])
                answers[i] = (empty, *aged_ms)
        for i, over_slot in self._over:
            if values[over_slot]:
                answers[i] = (*answers[i][:2], "OVER_LIMIT")
        if self._derivation is not None:
            return self._derivation.complete(answers, self._as_of_ms, self._aged)
        return answers

    def _aged(self, ts_ms: int | None) -> tuple[int | None, Status]:
        if ts_ms is not None and self._oldest_ms is not None and ts_ms < self._oldest_ms:
            return ts_ms, "OUTSIDE_MAX_AGE"
        return ts_ms, self._fresh
