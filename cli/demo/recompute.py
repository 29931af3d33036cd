"""The demo's second opinion: values recomputed by hand-written SQL over the raw files.

Nothing here reads the lake to compute a value, and nothing is shared with the kernel or the
compilers: ``feature_assets/examples/recompute/<view>.sql`` states each view's windows once more,
as a range join with conditional aggregates, from the file to the answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli.demo.sets import EXAMPLES, REGULAR, SEED, DemoSet
from millrace.errors import DataError
from millrace.plan import ViewPlan

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from pyspark.sql import SparkSession

    from resources.settings import Settings

SAMPLE_ROWS = 200

_RELATIVE = 1e-9
"""Doubles are added in another order by another engine; the window contract allows this much."""
_SHOWN = 5


@dataclass(frozen=True)
class Comparison:
    """One side held against the recomputed values of a view.

    Attributes:
        rows: rows that both sides have.
        values: rows times features.
        mismatches: how many of these differ.
        shown: the first of these, in words.
    """

    rows: int
    values: int
    mismatches: int = 0
    shown: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class ViewProof:
    """What recomputing a view's sample has shown, of the training set and of the history."""

    view: str
    features: int
    training: Comparison
    history: Comparison

    @property
    def mismatches(self) -> int:
        """Values that differ, on either side."""
        return self.training.mismatches + self.history.mismatches


def sample_of(training: "pa.Table") -> "pa.Table":
    """Return the rows to recompute: every awkward one and some hundred others, always the same."""
    import numpy as np
    import pyarrow as pa

    kinds = np.array(training["kind"].to_pylist())
    regular = np.flatnonzero(kinds == REGULAR)
    wanted = min(SAMPLE_ROWS, len(regular))
    some = np.random.default_rng(SEED + 1).choice(regular, wanted, replace=False)
    rows = np.sort(np.concatenate([some, np.flatnonzero(kinds != REGULAR)]))
    return training.take(pa.array(rows))


def prove_view(
    spark: "SparkSession",
    settings: "Settings",
    demo_set: DemoSet,
    view: ViewPlan,
    sample: "pa.Table",
) -> ViewProof:
    """Recompute a view for the sample and compare both the training set and the history with it.

    Raises:
        DataError: the hand-written SQL and the declaration do not name the same features.
    """
    asked = sample.select(["row", *demo_set.keys, "event_timestamp", "kind"])
    asked = asked.rename_columns(["row", *demo_set.keys, "q", "kind"])
    spark.createDataFrame(asked).createOrReplaceTempView("asked")
    spark.read.parquet(str(demo_set.raw)).createOrReplaceTempView(demo_set.source)
    features = [f.name for f in view.outputs]
    truth = _by_row(spark.sql(_query(view.name)).toArrow())
    _check_names(view.name, features, truth)
    return ViewProof(
        view=view.name,
        features=len(features),
        training=_compare(view.name, features, sample.to_pylist(), truth),
        history=_compare(view.name, features, _history(spark, settings, view), truth),
    )


def _query(view: str) -> str:
    path: Path = EXAMPLES / "recompute" / f"{view}.sql"
    return path.read_text(encoding="utf-8")


def _by_row(table: "pa.Table") -> dict[int, dict[str, Any]]:
    return {answer["row"]: answer for answer in table.to_pylist()}


def _check_names(
    view: str, features: Sequence[str], truth: Mapping[int, Mapping[str, Any]]
) -> None:
    recomputed = {name for answer in truth.values() for name in answer} - {"row"}
    if recomputed != set(features):
        odd = ", ".join(sorted(recomputed ^ set(features)))
        raise DataError(
            f"the declaration and its recomputation do not both name {odd}",
            where=f"feature_assets/examples/recompute/{view}.sql",
            fix="say the same features in both",
        )


def _history(spark: "SparkSession", settings: "Settings", view: ViewPlan) -> list[dict[str, Any]]:
    """Return the rows of ``features/<view>`` at the sampled events, each with its ``row``."""
    from resources.lake.delta import table_path
    from resources.lake.view_versions import deployed_version

    path = table_path(settings, f"features/{view.name}/{deployed_version(settings, view)}")
    spark.read.format("delta").load(path).createOrReplaceTempView("history")
    same_keys = " AND ".join(f"h.`{key}` = a.`{key}`" for key in view.join_keys)
    found: list[dict[str, Any]] = (
        spark.sql(
            "SELECT a.row, h.* FROM asked AS a JOIN history AS h"  # noqa: S608 - declared names
            f" ON {same_keys} AND h.event_time = a.q WHERE a.kind = '{_quoted(REGULAR)}'"
        )
        .toArrow()
        .to_pylist()
    )
    return found


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


def _compare(
    view: str,
    features: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    truth: Mapping[int, Mapping[str, Any]],
) -> Comparison:
    different = [
        f"{view}.{name}, row {row['row']}: {row[name]!r}, recomputed {truth[row['row']][name]!r}"
        for row in rows
        for name in features
        if not is_equal(row[name], truth[row["row"]][name])
    ]
    values = len(rows) * len(features)
    return Comparison(len(rows), values, len(different), tuple(different[:_SHOWN]))


def is_equal(ours: object, theirs: object) -> bool:
    """Compare two values: doubles to a relative 1e-9, everything else exactly, null with null."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=_RELATIVE, abs_tol=1e-12)
    if ours is None or theirs is None:
        return ours is theirs
    return ours == theirs


def differing_values(a: "pa.Table", b: "pa.Table", columns: Sequence[str]) -> int:
    """Count the values of these columns in which two tables of as many rows differ."""
    return sum(
        not is_equal(x, y)
        for name in columns
        for x, y in zip(a[name].to_pylist(), b[name].to_pylist(), strict=True)
    )
