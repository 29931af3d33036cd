"""What an author should know of a view and need not mend."""

from collections.abc import Iterator, Sequence

from millrace.durations import DAY_MS, HOUR_MS, SECOND_MS, format_duration
from millrace.plan import FeaturePlan, ViewPlan

MANY_TILES = 5_000
"""A window of more tiles than this is merged from too many parts when it is read."""


def warnings_of(view: ViewPlan) -> tuple[str, ...]:
    """Return a view's warnings, one sentence each, the gravest first."""
    return tuple(
        sentence
        for rule in (
            _identity,
            _many_tiles,
            _lateness,
            _hourly,
            _lifetime,
            _idle_hop,
            _tiles,
            _promises,
        )
        for sentence in rule(view)
    )


def _identity(view: ViewPlan) -> Iterator[str]:
    source = view.source
    if source.event_id is None:
        yield (
            f"source {source.name} names no event_id: nothing is deduplicated, an event sent "
            "twice counts twice"
        )
    if source.ingest_time is not None and source.batch is None:
        yield f"ingest_time of source {source.name} is unused: a stream has its record timestamps"


def _many_tiles(view: ViewPlan) -> Iterator[str]:
    for feature in view.features:
        length, hop = feature.window.length_ms, feature.window.hop_ms
        if length is not None and length // hop > MANY_TILES:
            yield (
                f"{feature.name}: {length // hop:,} tiles of {format_duration(hop)} in a window "
                f"of {format_duration(length)}; a coarser hop is cheaper to read"
            )


def _lateness(view: ViewPlan) -> Iterator[str]:
    lateness = view.source.allowed_lateness_ms
    short = [
        f
        for f in view.features
        if f.window.reach_ms is not None and f.window.reach_ms - f.window.hop_ms < lateness
    ]
    if short:
        yield (
            f"events may come {format_duration(lateness)} late, after they have left the window "
            f"of {_names(short)}: training sets and served values never see those"
        )


def _hourly(view: ViewPlan) -> Iterator[str]:
    source = view.source
    if source.schedule.is_hourly and source.allowed_lateness_ms > DAY_MS:
        hours = 2 - -source.allowed_lateness_ms // HOUR_MS
        yield (
            f"source {source.name} takes events {format_duration(source.allowed_lateness_ms)} "
            f"late, so its hourly refresh builds {hours} hours anew each hour"
        )


def _lifetime(view: ViewPlan) -> Iterator[str]:
    endless = [f for f in view.features if f.window.length_ms is None]
    if endless:
        yield (
            f"{_names(endless)} over a lifetime: every read of history goes back to the start, "
            f"{view.start}"
        )


def _idle_hop(view: ViewPlan) -> Iterator[str]:
    if view.tile_hop_ms == SECOND_MS:
        yield "tiles are of 1s, the finest there are: expect many rows in tiles and in the store"


def _tiles(view: ViewPlan) -> Iterator[str]:
    finest = min(f.window.hop_ms for f in view.features)
    if view.tile_hop_ms < finest and view.tile_hop_ms != SECOND_MS:
        yield (
            f"tiles are of {format_duration(view.tile_hop_ms)}, finer than the finest hop "
            f"{format_duration(finest)}: the hops do not divide one another and the day"
        )


def _promises(view: ViewPlan) -> Iterator[str]:
    if view.freshness_ms is not None and view.source.stream is None:
        yield (
            f"freshness of {format_duration(view.freshness_ms)} is promised, but source "
            f"{view.source.name} has no stream to keep it: values age from the end of the last day "
            "that was uploaded"
        )


def _names(features: Sequence[FeaturePlan]) -> str:
    shown = ", ".join(f.name for f in features[:3])
    return shown if len(features) <= 3 else f"{shown} and {len(features) - 3} more"  # noqa: PLR2004 - a short list
