"""What the merging reads of packed tiles: some of their slots, as they were stored.

A lookup that merges reads tens of tiles, so what is done for each of them counts. For each pattern of
presence bits one ``struct`` call takes what stands at fixed places and passes over the rest; only
behind a value of no fixed width is a tile walked through. Values are not converted here, for whoever
adds up fifty decimals needs one of them.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from millrace.codec import Codec
from millrace.layouts import Slot, slot_reader, spread
from millrace.packed_values import Cut

Row = tuple[Any, ...]
"""What was read of a tile: one value per column, None where absent, as ``struct`` gives it where it is of
fixed width."""

_PLACE_BYTES = 16  # of an edge: event time and ingest time
_LENGTH = struct.Struct(">I")
_MOST_PATTERNS = 1024
_BROKEN = (struct.error, UnicodeDecodeError, OverflowError, IndexError, Cut)

Skip = Callable[[bytes, int], int]
"""Returns the offset behind the value that starts at an offset."""


class TileReader:
    """Reads some of a tile's columns; what it does not read it does not check.

    Args:
        codec: of the tiles.
        columns: places of the slots to read, ascending.
    """

    def __init__(self, codec: Codec, columns: Sequence[int]) -> None:
        self.columns = tuple(columns)
        self._codec = codec
        self._full: dict[bytes, Callable[[bytes], Row]] = {}
        self._others: dict[bytes, Callable[[bytes], Row]] = {}

    def rows(self, tiles: Iterable[bytes]) -> tuple[list[Row], bool]:
        """Return what is read of each tile, and whether no value of all these is absent.

        Raises:
            StoreError: one is of another format, kind or version of the view, or broken.
        """
        head, begin, end = self._codec.head, self._codec.bits_at, self._codec.values_at
        full, rows, is_full = self._full, [], True
        try:
            for tile in tiles:
                read = full.get(tile[begin:end]) if tile.startswith(head) else None
                if read is None:
                    bits = self._codec.bits(tile)
                    read = self._others.get(bits) or self._pattern(bits)
                    is_full = is_full and bits in full
                rows.append(read(tile))
        except _BROKEN as error:
            raise self._codec.broken(f"a value is cut off or not of its type ({error})") from error
        return rows, is_full

    def _pattern(self, bits: bytes) -> Callable[[bytes], Row]:
        """Compile, and keep, how tiles with these presence bits are read."""
        present = self._codec.present(bits)
        found = _Pattern(self._codec.slots, present, self.columns, self._codec.values_at)
        read = found.read if found.runs or found.spread else found.last.unpack_from
        kept = self._others if found.spread else self._full
        if len(kept) < _MOST_PATTERNS:
            kept[bits] = read
        return read


class _Pattern:
    """How the columns of tiles with some presence bits are read."""

    def __init__(
        self, slots: Sequence[Slot], present: Sequence[bool], columns: Sequence[int], start: int
    ) -> None:
        last_column = max((i for i in columns if present[i]), default=-1)
        wanted, form, rest = set(columns), f">{start}x", 0
        self.runs: list[tuple[struct.Struct, Skip | None, Callable[..., Any] | None]] = []
        for i, slot in enumerate(slots):
            if not present[i]:
                continue
            width = _width(slot)
            if i > last_column:
                rest += width or _least_width(slot)
            elif width is None and i in wanted:
                self.runs.append((struct.Struct(form), None, slot_reader(slot)))
                form = ">"
            elif width is None:
                self.runs.append((struct.Struct(form), _skip(slot), None))
                form = ">"
            else:
                form += slot.type.record.packed or "" if i in wanted else f"{width}x"
        # What follows is not read; its least length is asked for, as a cut tile is not whole.
        self.last = struct.Struct(f"{form}{rest}x")
        found = [i for i in columns if present[i]]
        places = [found.index(i) if present[i] else len(found) for i in columns]
        self.spread = None if len(found) == len(columns) else spread(places)

    def read(self, data: bytes) -> Row:
        values: list[Any] = []
        at = 0
        for form, skip, reader in self.runs:
            values += form.unpack_from(data, at)
            at += form.size
            if reader is not None:
                value, at = reader(data, at)
                values.append(value)
            elif skip is not None:
                at = skip(data, at)
        values += self.last.unpack_from(data, at)
        return tuple(values) if self.spread is None else self.spread((*values, None))


def _width(slot: Slot) -> int | None:
    """Return how many bytes each of a slot's values has; None where they differ."""
    packed = slot.type.record.packed
    if packed is None or slot.is_edge:
        return None
    return struct.calcsize(f">{packed}")


def _least_width(slot: Slot) -> int:
    packed = slot.type.record.packed
    least = 0 if packed is None else struct.calcsize(f">{packed}")
    return least + (_PLACE_BYTES if slot.is_edge else 0)


def _skip(slot: Slot) -> Skip:
    """Return what passes over a slot's value."""
    read, packed, id_type = slot_reader(slot), slot.type.record.packed, slot.id_type
    if slot.is_edge and packed is not None and id_type is not None and id_type.record.packed:
        without = _PLACE_BYTES + 1 + struct.calcsize(f">{packed}")
        named = without + struct.calcsize(f">{id_type.record.packed}")
        return lambda data, at: at + (named if data[at + _PLACE_BYTES] else without)
    if not slot.is_edge and slot.type.kind in {"string", "bytes"}:
        return lambda data, at: at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
    return lambda data, at: read(data, at)[1]
