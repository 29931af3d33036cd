"""Training sets: a spine, and the features of its rows as each was known at the row's time.

Both engines run the same kernel over the same events; they differ in where it runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from millrace.errors import EngineUnavailable
from millrace.plan import Plan
from offline.tables.history import History, TrainingWarning, find_history
from offline.training.dataset_file import check_place, column_names, write_table_file
from offline.training.lineage import emitting
from offline.training.local_join import join_locally
from offline.training.requested_features import RequestedFeatures, RequestedView, request_features
from offline.training.spark_join import join_on_spark
from offline.training.spine import Spine, read_spine
from resources.memory import small_pages
from resources.progress import Progress
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

Engine = Literal["local", "spark"]

LOCAL_MEMORY_SHARE = 0.5
"""The share of the free memory that a training set may take before Spark is preferred."""

_BYTES_PER_VALUE = 16
_BYTES_PER_ROW = 64
_SYSTEM_COLUMNS = 2

_JOINS: Mapping[Engine, Callable[..., "pa.Table"]] = {
    "local": join_locally,
    "spark": join_on_spark,
}


@dataclass(frozen=True)
class ViewShare:
    """What one view gave to a training set.

    Attributes:
        features: output columns from this view.
        events_read: events in the days that were read, of all keys, before the view's filter.
        table: the events table under the lake, and ``delta_version`` the version read.
        fingerprint: of the view as a whole, which names the meaning of its features.
    """

    view: str
    fingerprint: str
    features: tuple[str, ...]
    events_read: int
    table: str
    delta_version: int
    seconds: float


@dataclass(frozen=True)
class TrainingReport:
    """A training set that was written.

    Attributes:
        out: the file.
        engine: where it was computed.
        hindsight: events were seen before they arrived, too.
        rows: rows, as many as the spine has.
        columns: feature columns, in the order asked for, behind the spine's own.
        null_rates: the share of nulls in each feature column, 0 for a set without rows.
        seconds: wall time, reading and writing included.
    """

    out: Path
    engine: Engine
    hindsight: bool
    rows: int
    columns: tuple[str, ...]
    null_rates: Mapping[str, float]
    views: tuple[ViewShare, ...]
    warnings: tuple[TrainingWarning, ...]
    seconds: float

    @property
    def events_read(self) -> int:
        """Events read for all views; a source that two views read counts twice."""
        return sum(share.events_read for share in self.views)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "out": str(self.out),
            "engine": self.engine,
            "hindsight": self.hindsight,
            "rows": self.rows,
            "features": list(self.columns),
            "null_rates": {name: round(rate, 6) for name, rate in self.null_rates.items()},
            "events_read": self.events_read,
            "views": [
                {
                    "view": share.view,
                    "fingerprint": share.fingerprint,
                    "features": list(share.features),
                    "events_read": share.events_read,
                    "table": share.table,
                    "delta_version": share.delta_version,
                    "seconds": round(share.seconds, 3),
                }
                for share in self.views
            ],
            "warnings": [warning.as_json() for warning in self.warnings],
            "seconds": round(self.seconds, 3),
        }


@small_pages()
def build_training_set(
    settings: Settings,
    plan: Plan,
    spine_path: Path,
    features: Sequence[str],
    out: Path,
    *,
    engine: Engine | None = None,
    hindsight: bool = False,
    progress: Progress = lambda _: None,
    before_spark: Callable[[], None] = lambda: None,
) -> TrainingReport:
    """Write a spine with the features of its rows to a Parquet or CSV file.

    The file has the rows of the spine in their order, its columns untouched, and behind them the
    features. All that can be wrong with the request is found before any work. A file of that name
    is replaced when all is done, and stays as it was if anything fails.

    Args:
        settings: where the lake and Spark are.
        plan: everything declared.
        spine_path: Parquet or CSV with the join keys and ``event_timestamp``.
        features: ``feature``, ``view:feature`` or ``view:*``.
        out: ``.parquet`` or ``.csv``.
        engine: None picks one, see ``choose_engine``.
        hindsight: see events also before they arrived; by default a row sees only what was known
            at its time.
        progress: told in words what is going on.
        before_spark: called before Spark is asked for anything, if it is; may start it.

    Raises:
        SpecError: a feature is not declared, or its name is not unique.
        DataError: the spine or the place of the result is not usable, or there is no history.
        EngineError: Spark failed.
    """
    began = time.monotonic()
    check_place(out, "a training set")
    request = request_features(plan, features, column_names(spine_path))
    progress(f"reading {spine_path.name}")
    spine = read_spine(spine_path)
    spine.refuse_columns(request.columns)
    spines = [_view_spine(spine, asked) for asked in request.views]
    histories = [find_history(settings, asked.view, spine.query_ms) for asked in request.views]
    chosen = engine or choose_engine(settings, request, histories, len(spine))
    if chosen == "spark":
        before_spark()
    shares: list[ViewShare] = []
    columns: dict[str, pa.ChunkedArray] = {}
    read = (spine_path, spine.table)
    told = {"engine": chosen, "hindsight": hindsight}
    with emitting(settings, out, read, request, histories, **told) as written:
        for asked, history, keys in zip(request.views, histories, spines, strict=True):
            share, values = _join(settings, asked, history, keys, chosen, hindsight, progress)
            shares.append(share)
            columns |= dict(zip(asked.columns, values.columns, strict=True))
        progress(f"writing {out.name}")
        table = _assembled(spine, out, columns, request.columns)
        write_table_file(table, out)
        written(table)
    return TrainingReport(
        out=out,
        engine=chosen,
        hindsight=hindsight,
        rows=len(spine),
        columns=request.columns,
        null_rates={n: columns[n].null_count / max(1, len(spine)) for n in request.columns},
        views=tuple(shares),
        warnings=tuple(w for h, k in zip(histories, spines, strict=True) for w in _warned(h, k)),
        seconds=time.monotonic() - began,
    )


def choose_engine(
    settings: Settings, request: RequestedFeatures, histories: Sequence[History], rows: int
) -> Engine:
    """Choose where to compute: here, if the lake is a local path and everything fits in memory.

    What is needed is estimated from row counts in the transaction log: 64 bytes a row and 16 a
    value, for the events of the largest view, the spine and the features. It fits if it is at most
    half of the memory that is free now.
    """
    import psutil

    if "://" in settings.lake:
        return "spark"
    events = max((_history_bytes(history) for history in histories), default=0)
    spine = rows * (_BYTES_PER_ROW + _BYTES_PER_VALUE * len(request.columns))
    free = psutil.virtual_memory().available
    return "local" if events + spine <= LOCAL_MEMORY_SHARE * free else "spark"


def _history_bytes(history: History) -> int:
    values = _SYSTEM_COLUMNS + len(history.view.join_keys) + len(history.view.measures)
    return history.rows * (_BYTES_PER_ROW + _BYTES_PER_VALUE * values)


def _view_spine(spine: Spine, asked: RequestedView) -> "pa.Table":
    return spine.keys(asked.view.entities).append_column("_query_ms", spine.query_ms)


def _join(
    settings: Settings,
    asked: RequestedView,
    history: History,
    spine: "pa.Table",
    engine: Engine,
    hindsight: bool,  # noqa: FBT001
    progress: Progress,
) -> tuple[ViewShare, "pa.Table"]:
    began = time.monotonic()
    view = asked.view
    progress(
        f"{view.name}: {len(view.outputs)} feature(s) of {len(spine)} row(s) "
        f"from {history.rows} event(s) of {len(history.days)} day(s), on {engine}"
    )
    join = partial(
        _JOINS[engine],
        settings,
        history,
        spine,
        reads_event_id=asked.reads_event_id,
        hindsight=hindsight,
    )
    try:
        values = join()
    except EngineUnavailable as error:
        # It only reads. A Spark that died meanwhile is waited for until it is there again.
        progress(f"{view.name}: once more, {error.what}")
        values = join()
    share = ViewShare(
        view=view.name,
        fingerprint=view.fingerprint,
        features=asked.columns,
        events_read=history.rows,
        table=history.table,
        delta_version=history.version,
        seconds=time.monotonic() - began,
    )
    return share, values


def _assembled(
    spine: Spine, out: Path, columns: Mapping[str, "pa.ChunkedArray"], order: Sequence[str]
) -> "pa.Table":
    table = spine.columns_for(out)
    for name in order:
        table = table.append_column(name, columns[name])
    return table


def _warned(history: History, spine: "pa.Table") -> tuple[TrainingWarning, ...]:
    """The warnings of a history, and one for spine rows that belong to nobody."""
    import pyarrow.compute as pc

    keyless = None
    for key in history.view.join_keys:
        missing = spine.column(key).is_null()
        keyless = missing if keyless is None else pc.or_(keyless, missing)
    nulls = pc.sum(keyless).as_py() or 0
    if not nulls:
        return history.warnings
    keys = ", ".join(history.view.join_keys)
    what = f"{nulls} of {len(spine)} row(s) have no {keys}: counts are 0, other features null"
    return (*history.warnings, TrainingWarning("null_keys", history.view.name, what))
