"""Answers as bytes: what does not differ between keys is written once.

An answer about a key is text with gaps: the key, and the value and ``ts`` of each feature. The text
depends on the statuses alone, and few sets of these are ever seen, so it is kept by them. What fills
the gaps of all keys is encoded by one call, a line each: JSON has no line breaks of its own.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from millrace.layouts import spread
from millrace.online.answers import Answer, Status
from millrace.online.view import OnlineView
from millrace.types import DataType
from serving.catalog import LookupPlan
from serving.errors import BadRequest
from serving.instants import instant_text
from serving.responses import FeatureAnswer, KeyAnswer, KeyFault, KeyStatus

ENCODER = msgspec.json.Encoder(decimal_format="number")
NEVER_MS = -(2**64)
"""Before every instant."""

_MOST_KEPT = 1024
_ALWAYS_MS = -(2**63)

RowRead = tuple[bytes, tuple[Any, ...], int | None, int | None]
"""A row as ``Codec.read`` gives it."""

Write = Callable[[Any], Any]
"""Makes of a value, never null, what an answer says in its place."""

Masks = Mapping[tuple[str, str], Write]
"""By view and feature: what stands in place of its values."""

_Chunk = tuple[Any, ...]
"""What is to be encoded for one key: the key, then what its shape takes the gaps from."""


class _Shape(NamedTuple):
    """How a key's answer is written.

    Attributes:
        text: the answer, ``%b`` in its gaps.
        gaps: takes the texts of the gaps from those of the chunk.
        writes: what becomes of the chunk's values first, by place.
    """

    text: bytes
    gaps: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    writes: tuple[tuple[int, Write], ...] = ()


class Instant:
    """An instant at which rows of one version of a view are asked.

    Attributes:
        absent: what is said of an entity that is unknown, one answer per feature asked for.
        tails_ms: from when on a newest event is in each window, ascending.
        state: the promise of freshness, and the windows in the order of their tails.
        oldest_ms: what is older is out of age.
    """

    def __init__(
        self,
        online: OnlineView,
        places: Sequence[int],
        windows: Sequence[int],
        as_of_ms: int,
        progress_ms: int | None,
    ) -> None:
        self.as_of_ms = as_of_ms
        tails_ms = online.newest_from_ms(as_of_ms)
        ordered = sorted((_ALWAYS_MS if (t := tails_ms[w]) is None else t, w) for w in windows)
        self.tails_ms = [tail_ms for tail_ms, _ in ordered]
        fresh: Status = "STALE" if online.is_late(as_of_ms, progress_ms) else "PRESENT"
        self.state = (fresh, tuple(window for _, window in ordered))
        self.oldest_ms = NEVER_MS if online.ttl_ms is None else as_of_ms - online.ttl_ms
        self.absent = online.absent(as_of_ms, places)


class KeyRenderer:
    """Writes the answers about keys of one plan.

    Attributes:
        labels: of the fields, in the order asked.
        versions: of each field.
        at: of each field, its place among the answers of the plan's reads, one after the other.
        shown: of each field, its mask, None for none, and its type.
        writes: of each field, what JSON has in place of its values; None: these as they are.
        fields: of a plain plan, each field's place in the row, its window, and the place of its
            ``ts``, None for the newest event; else None.
    """

    def __init__(self, plan: LookupPlan, masks: Masks) -> None:
        before = [sum(len(read.places) for read in plan.reads[:i]) for i in range(len(plan.reads))]
        self.at = [before[i] + place for _, i, place in plan.fields]
        asked = [(plan.reads[i], plan.reads[i].places[place]) for _, i, place in plan.fields]
        self.labels = [label for label, _, _ in plan.fields]
        self.versions = [read.served.version for read, _ in asked]
        features = [read.served.online.features[place] for read, place in asked]
        self.shown = [
            (masks.get((read.served.online.name, feature.name)), feature.type)
            for (read, _), feature in zip(asked, features, strict=True)
        ]
        self.writes = [mask or writer_of(type_) for mask, type_ in self.shown]
        self._answered: dict[tuple[Status, ...], _Shape] = {}
        self._shapes: dict[Any, _Shape] = {}
        self.fields = _plain_fields(plan, self.at)
        fields = self.fields or []
        self._windows = list(dict.fromkeys(w for _, w, ts_slot in fields if ts_slot is None))
        self._ts_slots = tuple(dict.fromkeys(s for _, _, s in fields if s is not None))
        self.plan = plan
        self._instant: tuple[int | None, Instant] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether all that is asked for stands in one row as it is."""
        return self.fields is not None

    def instant(self, as_of_ms: int, progress_ms: int | None) -> Instant:
        """Return an instant of a plain plan; many requests have the same."""
        known = self._instant
        if known is not None and known[0] == progress_ms and known[1].as_of_ms == as_of_ms:
            return known[1]
        (read,) = self.plan.reads
        found = Instant(read.served.online, read.places, self._windows, as_of_ms, progress_ms)
        self._instant = (progress_ms, found)
        return found

    def from_rows(
        self, keys: Sequence[Any], rows: Sequence[RowRead], instant: Instant
    ) -> list[bytes]:
        """Return the answer about each key; only of a plain plan.

        Args:
            keys: as asked.
            rows: one per key, each holding at the instant.
            instant: from ``instant``.
        """
        chunks: list[_Chunk] = []
        shapes = []
        for key, (bits, values, newest_ms, _) in zip(keys, rows, strict=True):
            event_ms = NEVER_MS if newest_ms is None else newest_ms
            within = bisect_right(instant.tails_ms, event_ms)
            is_out = event_ms < instant.oldest_ms
            slots = self._ts_slots and self._slots_of(values, instant)
            known = (bits, instant.state, within, is_out, slots)
            shape = self._shapes.get(known) or self._shape(known, values)
            ts = None if newest_ms is None else instant_text(newest_ms)
            chunk = (key, *values, ts, None)
            chunks.append(_written(chunk, shape.writes) if shape.writes else chunk)
            shapes.append(shape)
        return _filled(shapes, chunks)

    def from_answers(self, keys: Sequence[Any], answers: Sequence[Sequence[Answer]]) -> list[bytes]:
        """Return the answer about each key, of the answers of the plan's reads, one after the other."""
        chunks: list[_Chunk] = []
        shapes = []
        for key, of_reads in zip(keys, answers, strict=True):
            asked = [of_reads[at] for at in self.at]
            shapes.append(self._answered_shape(tuple([status for _, _, status in asked])))
            chunk = [key]
            for (value, ts_ms, _), write in zip(asked, self.writes, strict=True):
                chunk.append(value if value is None or write is None else write(value))
                chunk.append(None if ts_ms is None else instant_text(ts_ms))
            chunks.append(tuple(chunk))
        return _filled(shapes, chunks)

    def invalid(self, key: Any, error: BadRequest) -> bytes:
        """Return what is said of a key that is none of the entity."""
        features = {
            label: FeatureAnswer(None, None, version, "INVALID_KEY")
            for label, version in zip(self.labels, self.versions, strict=True)
        }
        fault = KeyFault(error.what, error.where, error.fix)
        return ENCODER.encode(KeyAnswer(key, features, "INVALID_KEY", fault))

    def _slots_of(self, values: Sequence[Any], instant: Instant) -> tuple[bool | None, ...]:
        """Return of each ``ts`` that stands in the row whether it is out of age; None: there is none."""
        return tuple(
            None if (ts_ms := values[slot]) is None else ts_ms < instant.oldest_ms
            for slot in self._ts_slots
        )

    def _shape(self, known: tuple[Any, ...], values: Sequence[Any]) -> _Shape:
        """Work out, and keep, how rows of these presence bits and ages are answered."""
        _, (fresh, windows), within, is_out, slots = known
        key, newest, none = 0, len(values) + 1, len(values) + 2
        in_windows = set(windows[:within])
        of_slots = dict(zip(self._ts_slots, slots, strict=True))
        statuses: list[Status] = []
        places = [key]
        writes: dict[int, Write] = {}
        for (place, window, ts_slot), write in zip(self.fields or (), self.writes, strict=True):
            if ts_slot is None:
                ts, is_old = (newest, is_out) if window in in_windows else (none, False)
            elif of_slots[ts_slot] is None:
                ts, is_old = none, False
            else:
                ts, is_old = ts_slot + 1, of_slots[ts_slot]
                writes[ts] = instant_text
            places += [place + 1, ts]
            if values[place] is None:
                statuses.append("NULL_VALUE")
                continue
            statuses.append("OUTSIDE_MAX_AGE" if is_old else fresh)
            if write is not None:
                writes[place + 1] = write
        text = self._answered_shape(tuple(statuses)).text
        shape = _Shape(text, spread(places), tuple(writes.items()))
        if len(self._shapes) >= _MOST_KEPT:
            self._shapes.clear()
        self._shapes[known] = shape
        return shape

    def _answered_shape(self, statuses: tuple[Status, ...]) -> _Shape:
        shape = self._answered.get(statuses)
        if shape is None:
            shape = _Shape(self._text(statuses), tuple)
            if len(self._answered) >= _MOST_KEPT:
                self._answered.clear()
            self._answered[statuses] = shape
        return shape

    def _text(self, statuses: tuple[Status, ...]) -> bytes:
        told = zip(self.labels, self.versions, statuses, strict=True)
        features = [
            b'%b:{"value":%%b,"ts":%%b,%b'
            % (_escaped(label), _escaped({"version": version, "status": status})[1:])
            for label, version, status in told
        ]
        status = key_status(statuses).encode()
        return b'{"key":%%b,"features":{%b},"status":"%b"}' % (b",".join(features), status)


def _escaped(value: Any) -> bytes:
    return ENCODER.encode(value).replace(b"%", b"%%")


def key_status(statuses: Sequence[Status]) -> KeyStatus:
    """Return what the statuses of its features say of a key."""
    found = set(statuses)
    if found == {"NOT_FOUND"}:
        return "NOT_FOUND"
    return "PARTIAL" if found & {"NOT_FOUND", "NULL_VALUE", "OVER_LIMIT"} else "OK"


def lookup_body(entity_name: str, as_of_ms: int, answers: Sequence[bytes]) -> bytes:
    """Return the JSON of a lookup of any number of keys: a ``LookupAnswer``."""
    return b"".join((_head(entity_name, as_of_ms), b',"results":[', b",".join(answers), b"]}"))


def entity_body(entity_name: str, as_of_ms: int, answers: Sequence[bytes]) -> bytes:
    """Return the JSON of a lookup of one key: an ``EntityAnswer``."""
    (only,) = answers
    return b"".join((_head(entity_name, as_of_ms), b",", only[1:]))


def _head(entity_name: str, as_of_ms: int) -> bytes:
    return b"%b%b" % (_named(entity_name), ENCODER.encode(instant_text(as_of_ms)))


@lru_cache(maxsize=1024)
def _named(entity_name: str) -> bytes:
    return b'{"entity_name":%b,"as_of":' % ENCODER.encode(entity_name)


def _filled(shapes: Sequence[_Shape], chunks: Sequence[_Chunk]) -> list[bytes]:
    texts = ENCODER.encode_lines(list(chain.from_iterable(chunks))).split(b"\n")
    answers, first = [], 0
    for (text, gaps, _), chunk in zip(shapes, chunks, strict=True):
        end = first + len(chunk)
        answers.append(text % gaps(texts[first:end]))
        first = end
    return answers


def _written(chunk: _Chunk, writes: Sequence[tuple[int, Write]]) -> _Chunk:
    changed = list(chunk)
    for place, write in writes:
        changed[place] = write(changed[place])
    return tuple(changed)


def _plain_fields(
    plan: LookupPlan, asked: Sequence[int]
) -> list[tuple[int, int, int | None]] | None:
    """Return of each field its place in the row, its window, and the place of its ``ts``.

    None if the plan has several reads, or one of its values does not stand in the row as it is.
    """
    if len(plan.reads) != 1:
        return None
    (read,) = plan.reads
    fields = read.served.online.plain(read.places)
    return None if fields is None else [fields[at] for at in asked]


def _plain_number(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(format(value, "f").encode())


_WRITERS: Mapping[str, Write] = {"decimal": _plain_number, "timestamp": instant_text}


def writer_of(type_: DataType, writers: Mapping[str, Write] = _WRITERS) -> Write | None:
    """Return how values of a type are written; None: as they are.

    Args:
        type_: of the values.
        writers: by kind, how scalars are written; as in JSON, if not given.
    """
    if type_.kind != "list":
        return writers.get(type_.kind)
    write = writer_of(type_.values, writers)
    return None if write is None else lambda values: [write(value) for value in values]
