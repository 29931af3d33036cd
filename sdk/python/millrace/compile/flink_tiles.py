"""What Flink is told of a view's tiles: a form for each partial.

Each form is an aggregate of the inner query, what becomes of it in the outer one, and the type that
the record of a tile has for it. The table of forms is held against all partials when this module
is loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlglot import exp

from millrace.aggregates import Partial, Unsupported, check_forms, partials
from millrace.compile import flink_ddl as ddl
from millrace.compile.expressions import flink_double
from millrace.compile.flink_events import INGEST_MS
from millrace.compile.tile_forms import EVENT_MS, PLAIN, measured
from millrace.compile.trees import call, column, identifier, named, table
from millrace.plan import FeaturePlan, ViewPlan
from millrace.tiles import TILE_START, TileColumn, tile_columns
from millrace.types import DataType

EVENT_ID = "_event_id"

Aggregated = Callable[[ViewPlan, TileColumn], exp.Expression]


def _named(kept: TileColumn) -> str:
    return kept.name


def _as_it_is(kept: TileColumn) -> exp.Expression:
    return column(kept.name)


def _plain_type(view: ViewPlan, kept: TileColumn) -> str:
    return wire_type(kept.type)


@dataclass(frozen=True)
class Form:
    """How Flink makes a partial.

    Attributes:
        aggregated: the aggregate of the inner query.
        name: what the inner query calls it; two partials of one name share it.
        finished: the column of the outer query.
        type: of the column in the tile topic, in Flink's spelling.
        function: what it calls of the job's jar.
    """

    aggregated: Aggregated
    name: Callable[[TileColumn], str] = _named
    finished: Callable[[TileColumn], exp.Expression] = _as_it_is
    type: Callable[[ViewPlan, TileColumn], str] = _plain_type
    function: str | None = None


def tile_start(view: ViewPlan) -> exp.Expression:
    """Return the start of the tile that an event lies in."""
    hop = exp.Literal.number(view.tile_hop_ms)
    past = call("MOD", column(EVENT_MS), hop)
    if view.start_ms < 0:  # MOD has the sign of the event time; the tile's floor has not
        past = call("MOD", exp.Add(this=past, expression=hop.copy()), hop.copy())
    return exp.Sub(this=column(EVENT_MS), expression=past)


def tile_query(view: ViewPlan, ttl_ms: int) -> exp.Select:
    """Return the query of a view's tiles over ``measured``; state lives as long as given."""
    keys = (*view.join_keys, TILE_START)
    columns = tile_columns(view)
    inner: dict[str, exp.Expression] = {}
    for kept in columns:
        form = FORMS[type(kept.partial)]
        inner[form.name(kept)] = form.aggregated(view, kept)
    ttl = exp.EQ(
        this=exp.Literal.string("measured"),
        expression=exp.Literal.string(f"{ttl_ms} ms"),
    )
    hint = exp.Hint(expressions=[exp.Anonymous(this="STATE_TTL", expressions=[ttl])])
    aggregated = exp.select(
        *(column(name) for name in keys), *(named(v, n) for n, v in inner.items())
    ).from_(table("measured"))
    aggregated = aggregated.group_by(*(column(name) for name in keys))
    aggregated.set("hint", hint)
    outer = [
        *(column(name) for name in keys),
        *(FORMS[type(c.partial)].finished(c) for c in columns),
    ]
    return exp.select(*outer).from_(aggregated.subquery(identifier("aggregated")))


def tile_functions(view: ViewPlan) -> set[str]:
    """Return the functions of the job's jar that a view's tiles call."""
    called = (FORMS[type(kept.partial)].function for kept in tile_columns(view))
    return {function for function in called if function is not None}


def kept_type(view: ViewPlan, kept: TileColumn) -> str:
    """Return the type of a tile's column in the tile topic."""
    return FORMS[type(kept.partial)].type(view, kept)


def gap_of(feature: FeaturePlan) -> Unsupported | None:
    """Say what Flink lacks for a feature; None if nothing."""
    measured = feature.aggregate.input
    kinds = () if measured is None else (measured.kind,)
    gaps = (UNSUPPORTED.get((type(p), k)) for p in feature.aggregate.partials for k in kinds)
    return next((gap for gap in gaps if gap is not None), None)


def wire_type(type_: DataType) -> str:
    """Return a type as it stands in records of the tile topic."""
    return "BIGINT" if type_.kind == "timestamp" else type_.flink


def on_wire(value: exp.Expression, type_: DataType) -> exp.Expression:
    """Instants leave as epoch milliseconds."""
    return call("EPOCH_MS", value) if type_.kind == "timestamp" else value


def _cast(value: exp.Expression, type_: str) -> exp.Expression:
    return exp.Cast(this=value, to=ddl.built_type(type_))


def _finite(value: exp.Expression) -> exp.Expression:
    # JSON has no infinity, and no comparison holds for NaN.
    largest = _cast(exp.Literal.number("1.7976931348623157E308"), "DOUBLE")
    return exp.Case().when(exp.LTE(this=exp.Abs(this=value.copy()), expression=largest), value)


def _sum(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    # Flink's sum of a decimal has 38 digits.
    integer = kept.of.type.is_integer
    return exp.Sum(this=_cast(measured(kept), "DECIMAL(28, 0)") if integer else measured(kept))


def _finished_sum(kept: TileColumn) -> exp.Expression:
    if kept.type.kind != "float64":
        return column(kept.name)
    return named(_finite(column(kept.name)), kept.name)


def _moments(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return call("MOMENTS", flink_double(measured(kept), kept.of.type))


def _moments_name(kept: TileColumn) -> str:
    return f"{kept.of.name}_moments"


def _moment(kept: TileColumn) -> exp.Expression:
    return named(column(kept.partial.suffix, _moments_name(kept)), kept.name)


def _edge(function: str) -> Aggregated:
    def aggregated(view: ViewPlan, kept: TileColumn) -> exp.Expression:
        places = [EVENT_MS, INGEST_MS, *([EVENT_ID] if view.source.event_id else [])]
        return call(function.upper(), *map(column, places), measured(kept))

    return aggregated


def _edge_type(view: ViewPlan, kept: TileColumn) -> str:
    fields = [("event_ms", "BIGINT"), ("ingest_ms", "BIGINT")]
    if view.source.event_id is not None:
        id_type = view.source.column(view.source.event_id).type
        fields.append(("event_id", wire_type(id_type)))
    fields.append(("value", wire_type(kept.type)))
    return f"ROW<{', '.join(f'`{name}` {type_}' for name, type_ in fields)}>"


def _encoded(function: str) -> Form:
    def aggregated(view: ViewPlan, kept: TileColumn) -> exp.Expression:
        assert isinstance(kept.partial, partials.Encoded)  # noqa: S101 - it is a form of those
        places = [EVENT_MS, INGEST_MS, *([EVENT_ID] if view.source.event_id else [])]
        return call(
            function.upper(),
            *(map(column, places) if kept.partial.is_ordered else ()),
            _cast(measured(kept), wire_type(kept.of.type)),  # its bytes are those of this type
            *(exp.Literal.number(f"{value:g}") for _, value in kept.partial.parameters),
        )

    return Form(aggregated, function=function)


_MOMENT = Form(_moments, _moments_name, _moment, function="moments")

FORMS: Mapping[type[Partial], Form] = MappingProxyType(
    {
        **{kind: Form(aggregated) for kind, aggregated in PLAIN.items()},
        partials.Sum: Form(_sum, finished=_finished_sum),
        partials.VectorSums: Form(
            lambda view, kept: call("VECTOR_SUMS", measured(kept)), function="vector_sums"
        ),
        partials.Mean: _MOMENT,
        partials.M2: _MOMENT,
        partials.First: Form(_edge("first_edge"), type=_edge_type, function="first_edge"),
        partials.Last: Form(_edge("last_edge"), type=_edge_type, function="last_edge"),
        partials.DistinctValues: _encoded("distinct_values"),
        partials.ValueCounts: _encoded("value_counts"),
        partials.FirstValues: _encoded("first_values"),
        partials.LastValues: _encoded("last_values"),
        partials.Registers: _encoded("rank_registers"),
        partials.BucketCounts: _encoded("bucket_counts"),
    }
)
"""What Flink is told of each partial."""

FUNCTIONS: Mapping[str, str] = MappingProxyType(
    {
        form.function: f"millrace.flink.{form.function.title().replace('_', '')}"
        for form in FORMS.values()
        if form.function is not None
    }
)
"""The functions of the job's jar that forms call, and the classes that hold them."""

_NO_ORDER_OF_BYTES = Unsupported(
    "it cannot compare them",
    "declare the column as string; or `online: false`, and the view is built and never live",
)
UNSUPPORTED: Mapping[tuple[type[Partial], str], Unsupported] = MappingProxyType(
    {
        (partials.Min, "bytes"): _NO_ORDER_OF_BYTES,
        (partials.Max, "bytes"): _NO_ORDER_OF_BYTES,
    }
)
"""What Flink lacks of a partial, by the kind of its measure."""

check_forms("Flink", partials.PARTIALS, FORMS)
