"""The keys and fields of the online store, and which keys share a slot of a cluster.

Decided here and in ``millrace.codec`` and ``millrace.published``, whose bytes other languages read too,
and nowhere else (``docs/formats.md`` §3 is the contract):

- ``m1{tt}R…`` and ``m1{tt}T…``, an entity's row and its hash of tiles, and ``m1{tt}M``, the marks
  of the hash tag, share a slot. A script touches keys of one tag, and a call of many keys is one
  call a tag.
- ``m1:plans`` and ``m1:progress`` have no tag. Each is read and written alone.

In the hash of marks there are, of each tile topic:

- ``<topic>/<partition>``: the marker. All records before this offset whose entity has this tag are
  in the store; set in the same step that stores them.
- ``epoch/<topic>/<partition>``: the newest writer's epoch. An older writer is refused.
- ``sealed/<topic>``: tiles that start before it are the upload's alone.
"""

from millrace.codec import KEY_PREFIX, TAGS, Kind, key_head, key_tail

SERVICES_FIELD = b"services"
CHANGES_FIELD = b"s"
"""Field of a tiles hash that counts its changes."""

_VIEW = b"view:"
_TILE_FIELD_BYTES = 8
_KIND_AT = len(key_head(0))
_GLOB = b"*?[]\\"


def marker_keys() -> list[bytes]:
    """Return the keys of the marks of all hash tags, in the tags' order."""
    return [marker_key(tag) for tag in range(TAGS)]


def marker_key(tag: int) -> bytes:
    """Return the key of a hash tag's marks."""
    return key_head(tag) + b"M"


def marker_field(topic: str, partition: int) -> str:
    """Return the field of a partition's marker."""
    return f"{topic}/{partition}"


def epoch_field(topic: str, partition: int) -> str:
    """Return the field of a partition's newest writer."""
    return f"epoch/{topic}/{partition}"


def sealed_field(topic: str) -> str:
    """Return the field of a topic's seal."""
    return f"sealed/{topic}"


def is_mark_of(field: bytes, topic: str) -> bool:
    """Say whether a field of the marks is about a topic."""
    name = topic.encode()
    return field.startswith((name + b"/", b"epoch/" + name + b"/")) or field == b"sealed/" + name


def row_key_of(tiles_key: bytes) -> bytes:
    """Return the key of the row that is merged from a hash of tiles."""
    return tiles_key[:_KIND_AT] + b"R" + tiles_key[_KIND_AT + 1 :]


def is_tile(field: bytes) -> bool:
    """Say whether a field of a tiles hash is a tile, and not what is kept about them."""
    return len(field) == _TILE_FIELD_BYTES


def is_of_version(key: bytes, view: str, fingerprint: str, kind: Kind) -> bool:
    """Say whether a key is a row, or a tiles hash, of a version."""
    return key.startswith(KEY_PREFIX) and key.startswith(
        key_tail(kind, view, fingerprint), _KIND_AT
    )


def version_pattern(view: str, fingerprint: str, kind: Kind | None = None) -> bytes:
    """Return the SCAN pattern of the rows and tiles of a version, or of one kind of them."""
    tail = key_tail(kind or "tile", view, fingerprint)
    exact = b"".join((b"\\" if byte in _GLOB else b"") + bytes([byte]) for byte in tail[1:])
    return KEY_PREFIX + b"{??}" + (tail[:1] if kind else b"[RT]") + exact + b"*"


def view_field(view: str) -> bytes:
    """Return the field of ``m1:plans`` that holds a view's publication."""
    return _VIEW + view.encode()


def view_of(field: bytes) -> str | None:
    """Return the view whose publication a field of ``m1:plans`` is; None if it is another's."""
    return field.removeprefix(_VIEW).decode() if field.startswith(_VIEW) else None


def progress_field(view: str, fingerprint: str) -> bytes:
    """Return the field of ``m1:progress`` of a version."""
    return f"{view}/{fingerprint}".encode()


def version_of(field: bytes) -> tuple[str, str]:
    """Return the view and the fingerprint that a field of ``m1:progress`` is about."""
    view, _, fingerprint = field.decode().rpartition("/")
    return view, fingerprint
