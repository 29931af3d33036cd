"""Versions of views: ``v1``, ``v2``, … by lake, one for each meaning that was ever built there.

A Delta table at ``<lake>/view_versions`` holds (view, fingerprint) pairs in the order in which
they were first built; the number of a version is its place in that order. A change of meaning is
thereby a new table, stream job and online key prefix, and the old one stays as it is.
"""

from datetime import UTC, datetime

from millrace.plan import ViewPlan
from resources.lake.delta import open_table, read_rows, rs_path
from resources.lake.options import storage_options
from resources.settings import Settings

TABLE = "view_versions"


def deployed_version(settings: Settings, view: ViewPlan) -> str | None:
    """Return the version of this view's meaning; None if the lake never saw it."""
    known = _fingerprints(settings, view.name)
    return f"v{known.index(view.fingerprint) + 1}" if view.fingerprint in known else None


def built_versions(settings: Settings, view: str) -> list[str]:
    """Return the versions of a view that the lake has seen, oldest first."""
    return [f"v{number}" for number, _ in enumerate(_fingerprints(settings, view), start=1)]


def claim_version(settings: Settings, view: ViewPlan) -> str:
    """Return the version of this view's meaning, allotting the next number if it is new."""
    import pyarrow as pa
    from deltalake import write_deltalake

    # Two first builds of one view may race: both rows are there, and both read the same order.
    while (found := deployed_version(settings, view)) is None:
        now_us = int(datetime.now(tz=UTC).timestamp() * 1_000_000)
        row = {"view": [view.name], "fingerprint": [view.fingerprint], "first_built_us": [now_us]}
        write_deltalake(
            rs_path(settings, TABLE),
            pa.table(row),
            mode="append",
            storage_options=storage_options(settings),
        )
    return found


def known_fingerprints(settings: Settings) -> dict[str, list[str]]:
    """Return the fingerprints of each view that was ever built, oldest first."""
    table = open_table(settings, TABLE)
    if table is None:
        return {}
    rows = read_rows(table).to_pylist()
    rows.sort(key=lambda r: (r["first_built_us"], r["fingerprint"]))
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        found.setdefault(row["view"], {})[row["fingerprint"]] = None
    return {view: list(known) for view, known in found.items()}


def _fingerprints(settings: Settings, view: str) -> list[str]:
    return known_fingerprints(settings).get(view, [])
