"""What runs are for, as a tag: the Runs page of Dagster filters by it, and has no other way to hide any."""

from types import MappingProxyType

TAG = "millrace/run"
BUILD = MappingProxyType({TAG: "build"})
"""Builds tables."""
UPKEEP = MappingProxyType({TAG: "upkeep"})
"""Keeps the rest going: uploads, streams, alerts, lineage, pruning."""
