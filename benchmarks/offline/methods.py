"""The methods that are compared. Each reads the events table and the spine and writes one Parquet.

The peers answer ``count_W sum_W min_W max_W`` for plain windows ``[q - W, q)``. In the card
scenario every event is a label, so they need no union of the two, which spares them work.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace.plan import FeaturePlan, Plan, ViewPlan
from offline.training.sets import Engine, build_training_set
from resources.settings import Settings
from resources.spark.session import connect

THREADS = 2


@dataclass(frozen=True)
class Task:
    """What every method is given."""

    settings: Settings
    plan: Plan
    view: ViewPlan
    spine: Path

    @property
    def events(self) -> str:
        """The events table."""
        return f"{self.settings.lake}/events/{self.view.source.name}"


Method = Callable[[Task, Path], None]


def _ours(engine: Engine) -> Method:
    def run(task: Task, out: Path) -> None:
        asked = [f"{task.view.name}:*"]
        build_training_set(task.settings, task.plan, task.spine, asked, out, engine=engine)

    return run


def _spark_range(task: Task, out: Path) -> None:
    from pyspark.sql import Column, Window
    from pyspark.sql import functions as F

    spark = connect(task.settings)
    (key,) = task.view.join_keys
    ordered = Window.partitionBy(key).orderBy("_event_ms")
    columns: list[Column] = []
    for feature in task.view.features:
        frame = ordered.rangeBetween(-_length_ms(feature), -1)
        value = F.lit(1) if feature.measure is None else F.col(feature.measure.expression.text)
        columns.append(getattr(F, feature.aggregate.name)(value).over(frame).alias(feature.name))
    events = spark.read.format("delta").load(task.events)
    rows = events.select(F.col("transaction_id").alias("row_id"), *columns)
    rows.write.mode("overwrite").parquet(str(out))


def _duckdb_range(frame_of: Callable[[FeaturePlan], str]) -> Method:
    def run(task: Task, out: Path) -> None:
        import duckdb

        (key,) = task.view.join_keys
        windows, columns = {}, []
        for feature in task.view.features:
            name = f"w_{_length_ms(feature)}"
            windows[name] = (
                f"{name} AS (PARTITION BY {key} ORDER BY _event_ms "
                f"RANGE BETWEEN {frame_of(feature)} PRECEDING AND 1 PRECEDING)"
            )
            value = "*" if feature.measure is None else feature.measure.expression.text
            columns.append(f"{feature.aggregate.name}({value}) OVER {name} AS {feature.name}")
        query = (
            f"SELECT transaction_id AS row_id, {', '.join(columns)} "
            f"FROM read_parquet('{task.events}/**/*.parquet') WINDOW {', '.join(windows.values())}"
        )
        with duckdb.connect(config={"threads": THREADS}) as database:
            database.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")

    return run


def _whole_frame(feature: FeaturePlan) -> str:
    return str(_length_ms(feature))


def _frame_by_row(feature: FeaturePlan) -> str:
    """The frame a hopping tail needs: its length is another at every row."""
    hop_ms, length_ms = feature.window.hop_ms, _length_ms(feature)
    return f"({length_ms} + (_event_ms - {length_ms}) % {hop_ms})"


def _length_ms(feature: FeaturePlan) -> int:
    if feature.window.length_ms is None:
        raise ValueError(f"{feature.name}: the peers know no lifetimes")
    return feature.window.length_ms


METHODS: Mapping[str, Method] = {
    "local": _ours("local"),
    "spark": _ours("spark"),
    "spark-range": _spark_range,
    "duckdb-range": _duckdb_range(_whole_frame),
    "duckdb-range-by-row": _duckdb_range(_frame_by_row),
}
ON_SPARK = frozenset({"spark", "spark-range"})
"""Methods whose work is done in the Spark server's processes."""
