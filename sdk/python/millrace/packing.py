"""How tiles are packed fast, where values are known to be of their types already.

``Codec.encode`` looks at every value; a writer that decodes typed records, or reads typed columns,
need not. The bytes are the same: one ``struct`` call for slots of fixed width that follow one
another, compiled once for each pattern of absent values.
"""

import struct
from collections.abc import Sequence
from typing import Any

from millrace.codec import FORMAT, Codec, entity_bytes, hash_tag, key_head, key_tail
from millrace.errors import DataError
from millrace.layouts import Slot
from millrace.packed_values import Writer, for_struct, value_writer
from millrace.types import DataType

_BIAS = 2**63
_PLACE = struct.Struct(">qq")
_HEADER_BYTES = 18
_MOST_KEYS = 65_536
_MOST_PATTERNS = 1_024


def rows_place(slots: int) -> int:
    """Return where in a packed tile of so many slots ``rows`` stands: 8 bytes, always there."""
    return _HEADER_BYTES + (slots + 7) // 8


class TilePacker:
    """Packs the tiles of one version of a view.

    Values are as ``Codec`` takes them, a decimal also as an int where its scale is 0, an edge as
    (event time, ingest time, event id, value).
    """

    def __init__(self, codec: Codec) -> None:
        self._slots = codec.slots
        self._head = bytes([FORMAT]) + b"T" + bytes.fromhex(codec.fingerprint)
        self._full = _Pattern(self._slots, [True] * len(self._slots), self._head)
        self._patterns: dict[tuple[bool, ...], _Pattern] = {}
        self.rows_at = rows_place(len(self._slots))

    def pack(self, values: Sequence[Any], event_ms: int) -> bytes:
        """Return the bytes of a tile.

        Args:
            values: one per slot, None for null.
            event_ms: event time of its newest event.

        Raises:
            DataError: a value does not fit its slot.
        """
        pattern = self._full if None not in values else self._pattern(values)
        try:
            return pattern.pack(values, event_ms + _BIAS)
        except (
            struct.error,
            OverflowError,
            ValueError,
            ArithmeticError,
            TypeError,
            AttributeError,
        ) as error:
            raise DataError(
                f"a tile holds a value that does not fit its slot: {error}",
                where=f"tile of {self._head[2:].hex()}",
                fix="give values of the slots' types",
            ) from error

    def _pattern(self, values: Sequence[Any]) -> "_Pattern":
        present = tuple(value is not None for value in values)
        pattern = self._patterns.get(present)
        if pattern is None:
            pattern = _Pattern(self._slots, present, self._head)
            if len(self._patterns) < _MOST_PATTERNS:
                self._patterns[present] = pattern
        return pattern


class _Pattern:
    """How the values of one pattern of absent slots are written."""

    def __init__(self, slots: Sequence[Slot], present: Sequence[bool], head: bytes) -> None:
        bits = sum(1 << i for i, there in enumerate(present) if there)
        bitmap = bits.to_bytes((len(slots) + 7) // 8, "little")
        self._before, self._after = head, bitmap
        self._converted: list[tuple[int, Writer]] = []
        form = f">{len(head)}sQ{len(bitmap)}s"
        places: list[int] = []
        self._runs: list[tuple[struct.Struct, list[int], int, Writer]] = []
        for i, (slot, there) in enumerate(zip(slots, present, strict=True)):
            if not there:
                continue
            if slot.is_edge or slot.type.record.packed is None:
                self._runs.append((struct.Struct(form), places, i, _writer(slot)))
                form, places = ">", []
                continue
            form, places = f"{form}{slot.type.record.packed}", [*places, i]
            convert = for_struct(slot.type)
            if convert is not None:
                self._converted.append((i, convert))
        self._last, self._last_places = struct.Struct(form), places
        self._is_plain = not self._runs and len(places) == len(slots)

    def pack(self, values: Sequence[Any], event: int) -> bytes:
        if self._converted:
            values = list(values)
            for i, convert in self._converted:
                values[i] = convert(values[i])
        if self._is_plain:
            return self._last.pack(self._before, event, self._after, *values)
        head: tuple[Any, ...] = (self._before, event, self._after)
        parts: list[bytes] = []
        for form, places, i, write in self._runs:
            parts += (form.pack(*head, *[values[place] for place in places]), write(values[i]))
            head = ()
        parts.append(self._last.pack(*head, *[values[place] for place in self._last_places]))
        return b"".join(parts)


class EntityKeys:
    """The keys of one version's tiles; those of the newest entities are remembered."""

    def __init__(
        self, view: str, fingerprint: str, join_keys: Sequence[tuple[str, DataType]]
    ) -> None:
        self._join_keys = tuple(join_keys)
        self._names = [name for name, _ in join_keys]
        self._tail = key_tail("tile", view, fingerprint)
        self._known: dict[tuple[Any, ...], tuple[int, bytes]] = {}

    def find(self, values: tuple[Any, ...]) -> tuple[int, bytes]:
        """Return the hash tag of an entity and the key of its tiles.

        Args:
            values: of the join keys, in declared order and of their types.

        Raises:
            DataError: a value is null or does not fit its type.
        """
        found = self._known.get(values)
        if found is None:
            entity = entity_bytes(self._join_keys, dict(zip(self._names, values, strict=True)))
            tag = hash_tag(entity)
            found = (tag, key_head(tag) + self._tail + entity)
            if len(self._known) >= _MOST_KEYS:
                self._known.clear()
            self._known[values] = found
        return found


def _writer(slot: Slot) -> Writer:
    write_value = value_writer(slot.type)
    if not slot.is_edge:
        return write_value
    if slot.id_type is None:
        return lambda edge: _PLACE.pack(edge[0], edge[1]) + write_value(edge[3])
    write_id = value_writer(slot.id_type)

    def write(edge: Sequence[Any]) -> bytes:
        place, name = _PLACE.pack(edge[0], edge[1]), edge[2]
        event_id = b"\0" if name is None else b"\1" + write_id(name)
        return place + event_id + write_value(edge[3])

    return write
