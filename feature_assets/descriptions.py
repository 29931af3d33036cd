"""What Dagster shows about an asset before it is ever built: text, columns, lineage, owners."""

import re
from collections.abc import Iterable, Iterator, Mapping

import dagster as dg

from millrace.durations import format_duration
from millrace.plan import DerivedPlan, Output, ServicePlan, SourcePlan, ViewPlan
from millrace.window import Window
from millrace.windows import Sliding
from resources.dagster.asset_keys import events_path

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TEAM = re.compile(r"team:[A-Za-z0-9_.-]+")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.-]+")
_TAG_LENGTH = 63


def owners(owner: str | None) -> list[str]:
    """Return the owner in Dagster's sense: an e-mail address or ``team:name``, else nobody.

    What Dagster would refuse still stands in the asset's metadata, as written.
    """
    if owner and (_EMAIL.fullmatch(owner) or _TEAM.fullmatch(owner)):
        return [owner]
    return []


def owners_of(views: Iterable[ViewPlan]) -> list[str]:
    """Return the owners of what is read from one source: a fault in it is theirs too."""
    return list(dict.fromkeys(owner for view in views for owner in owners(view.owner)))


def tags(declared: Mapping[str, str]) -> dict[str, str]:
    """Return tags that Dagster takes: other characters become ``_``, at most 63 of them."""
    return {_tag(key): _tag(value) for key, value in declared.items() if _tag(key)}


def _tag(text: str) -> str:
    return _NOT_IN_TAGS.sub("_", text.strip())[:_TAG_LENGTH]


def window_text(window: Window) -> str:
    """Say which events a window holds, seen from the instant of a query."""
    ago = f", as of {window.ago} before" if window.ago else ""
    if not isinstance(window, Sliding):
        return f"{window.words}{ago}"
    return f"last {window.words}{ago}, tail moves by {format_duration(window.hop_ms)}"


def input_text(feature: Output) -> str:
    """Return the aggregate as a call: ``avg(amount)``, ``count(*)``; else what it is derived by."""
    if isinstance(feature, DerivedPlan):
        return feature.expression.text
    argument = "*" if feature.measure is None else feature.measure.expression.text
    return feature.aggregate.of(argument)


def source_text(source: SourcePlan) -> str:
    """Describe ``events/<source>``."""
    identity = (
        f"An event counts once by `{source.event_id}` "
        f"(horizon {format_duration(source.dedup_horizon_ms)})."
        if source.event_id
        else "The source names no event id, so nothing is deduplicated."
    )
    return _paragraphs(
        source.description,
        f"Accepted events by UTC day of `{source.event_time}`. {identity} "
        f"Arrivals later than {format_duration(source.allowed_lateness_ms)}, stamps further ahead "
        f"than {format_duration(source.clock_skew_ms)} and rows that do not convert "
        f"are counted and kept in `dead_letters/{source.name}`.",
        "Its partitions are hours, built while they still take events; a day is judged at its last."
        if source.schedule.is_hourly
        else "",
    )


def dead_letters_text(source: SourcePlan) -> str:
    """Describe ``dead_letters/<source>``."""
    batch = (
        f"Rows and files that builds of `events/{source.name}` refused, with file, payload and reason; "
        "each build tells how many it met."
        if source.batch is not None
        else ""
    )
    stream = (
        "What the archive refused: reason, original bytes, place in the topic. The check `books` "
        "holds what was read against what became of it."
        if source.stream is not None
        else ""
    )
    return _paragraphs(f"What was refused of {source.name}.", batch, stream)


def service_text(service: ServicePlan) -> str:
    """Describe a feature service, with the features that it asks for."""
    rows = [f"| `{feature}` | `{view}` |" for view, feature in service.features]
    return _paragraphs(
        service.description or "The features that one model asks for.",
        "\n".join(["| feature | view |", "|---|---|", *rows]),
    )


def tiles_text(view: ViewPlan) -> str:
    """Describe ``tiles/<view>``."""
    return _paragraphs(
        view.description,
        f"Partial aggregates per ({', '.join(view.join_keys)}) and tile of "
        f"{format_duration(view.tile_hop_ms)}, mergeable into every window of the view.",
    )


def stream_text(view: ViewPlan) -> str:
    """Describe ``stream/<view>``."""
    return _paragraphs(
        view.description,
        f"The Flink job that keeps the tiles of ({', '.join(view.join_keys)}) fresh from the topic "
        f"of `{view.source.name}`. `millrace stream deploy {view.name}` or the job "
        "`stream_deploy` starts it; a sensor keeps it as wanted.",
    )


def online_text(view: ViewPlan) -> str:
    """Describe ``online/<view>``."""
    tiles = (
        "the tiles of the days that were uploaded"
        if view.source.stream is None
        else "batch tiles up to the cut-over, stream tiles from it on"
    )
    return _paragraphs(
        view.description,
        f"The values served for ({', '.join(view.join_keys)}): {tiles}, merged at the instant of "
        "the lookup.",
    )


def features_text(view: ViewPlan) -> str:
    """Describe ``features/<view>``, with a table of its features."""
    head = "| feature | value | window | type | |\n|---|---|---|---|---|"
    rows = [
        f"| `{f.name}` | `{_cell(input_text(f))}` | {_over(f)} | {f.type} "
        f"| {_cell(f.description)} |"
        for f in view.outputs
    ]
    where = f" where `{view.filter.text}`" if view.filter else ""
    return _paragraphs(
        view.description,
        f"One row per event of `{view.source.name}`{where} from {view.start} on: the values for "
        f"({', '.join(view.join_keys)}) as of that event, itself not included.",
        "\n".join([head, *rows]),
        "A window's head follows the query to the millisecond, its tail moves in hops. "
        "A count without events is 0, anything else null.",
        *(f"Warning: {warning}" for warning in view.warnings),
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


_ARCHIVED = (
    ("_partition", "int", "partition of the topic; null for rows of files"),
    ("_offset", "bigint", "offset in it; null for rows of files"),
)


def events_schema(source: SourcePlan) -> dg.TableSchema:
    """Return the columns of ``events/<source>``."""
    marks = {source.event_time: "event time", source.event_id: "event id"}
    return _schema(
        *((c.name, str(c.type), marks.get(c.name, "")) for c in source.columns),
        ("_event_ms", "bigint", "event time that counts, epoch milliseconds"),
        ("_ingest_ms", "bigint", "arrival, epoch milliseconds"),
        *_ARCHIVED if source.stream is not None else (),
        ("event_date", "date", "UTC day of _event_ms; the partition"),
    )


def served_schema(view: ViewPlan) -> dg.TableSchema:
    """Return what ``online/<view>`` answers with: the keys that are asked for, and the features."""
    return _schema(*_keys(view), *_features(view))


def features_schema(view: ViewPlan) -> dg.TableSchema:
    """Return the columns of ``features/<view>``."""
    return _schema(
        *_keys(view),
        ("event_time", "timestamp", "the instant of the values, UTC"),
        *_features(view),
        ("feature_version", "string", "version of the view's definition"),
        ("event_date", "date", "UTC day of event_time; the partition"),
    )


def _keys(view: ViewPlan) -> Iterator[tuple[str, str, str]]:
    for entity in view.entities:
        yield entity.join_key, str(entity.type), entity.description or f"key of {entity.name}"


def _features(view: ViewPlan) -> Iterator[tuple[str, str, str]]:
    for feature in view.outputs:
        yield feature.name, str(feature.type), _feature_text(feature)


def _over(feature: Output) -> str:
    return "derived" if isinstance(feature, DerivedPlan) else window_text(feature.window)


def _feature_text(feature: Output) -> str:
    meaning = f"{input_text(feature)}, {_over(feature)}"
    return f"{feature.description} ({meaning})" if feature.description else meaning


def _schema(*columns: tuple[str, str, str]) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[dg.TableColumn(name, type=kind, description=text) for name, kind, text in columns]
    )


def features_lineage(view: ViewPlan) -> dg.TableColumnLineage:
    """Return which columns of ``events/<source>`` each column of ``features/<view>`` reads."""
    always = (*view.join_keys, "_event_ms", *(view.filter.columns if view.filter else ()))
    lineage = {key: _read(view, (key,)) for key in view.join_keys}
    lineage["event_time"] = _read(view, ("_event_ms",))
    for feature in view.outputs:
        measures = [a.measure for a in view.aggregates_of(feature) if a.measure is not None]
        own = [column for measure in measures for column in measure.expression.columns]
        lineage[feature.name] = _read(view, (*own, *always))
    return dg.TableColumnLineage(deps_by_column=lineage)


def _read(view: ViewPlan, columns: Iterable[str]) -> list[dg.TableColumnDep]:
    key = dg.AssetKey(events_path(view.source))
    return [dg.TableColumnDep(asset_key=key, column_name=c) for c in dict.fromkeys(columns)]
