"""A source's plan for tests that need one and no declaration of it."""

from collections.abc import Iterable
from typing import Any

from millrace.plan import Column, SourcePlan

HOUR_MS = 3_600_000


def source_plan(columns: Iterable[Column], **changes: Any) -> SourcePlan:
    """Return a source ``s`` that times its events by ``at`` and tells no duplicates, but for changes."""
    plan: dict[str, Any] = {
        "name": "s",
        "columns": tuple(columns),
        "event_time": "at",
        "event_id": None,
        "ingest_time": None,
        "allowed_lateness_ms": HOUR_MS,
        "clock_skew_ms": 5_000,
        "dedup_horizon_ms": 0,
        "batch": None,
        "stream": None,
        "description": "",
        "fingerprint": "f" * 16,
    }
    return SourcePlan(**{**plan, **changes})
