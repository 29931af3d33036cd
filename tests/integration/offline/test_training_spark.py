"""Training sets on a real Spark: the same, cell by cell, as in process."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from checks.parity.known_entities import candidates_on_spark, read_entities
from offline.tables.history import find_history
from offline.training.sets import TrainingReport, build_training_set
from resources.settings import Settings
from resources.spark.session import connect
from tests.support.training_cases import (
    ALL_FEATURES,
    DAYS,
    FIRST,
    Shop,
    open_shop,
    shop_settings,
    shop_spine,
)

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


@pytest.fixture
def shop(settings: Settings, tmp_path: Path) -> Shop:
    return open_shop(shop_settings(settings, tmp_path))


def on_both(
    shop: Shop, folder: Path, spine: pa.Table, *, hindsight: bool
) -> list[tuple[TrainingReport, pa.Table]]:
    path = folder / "spine.parquet"
    pq.write_table(spine, path)
    built = []
    for engine in ("local", "spark"):
        out = folder / f"{engine}-{hindsight}.parquet"
        report = build_training_set(
            shop.settings, shop.plan, path, ALL_FEATURES, out, engine=engine, hindsight=hindsight
        )
        built.append((report, pq.read_table(out)))
    return built


@pytest.mark.parametrize("hindsight", [False, True])
def test_spark_gives_what_this_process_gives(
    shop: Shop,
    tmp_path: Path,
    hindsight: bool,  # noqa: FBT001
) -> None:
    (here, local), (there, spark) = on_both(shop, tmp_path, shop_spine(), hindsight=hindsight)
    assert (here.engine, there.engine) == ("local", "spark")
    assert spark.schema.equals(local.schema)
    for name in local.column_names:
        assert spark.column(name).equals(local.column(name)), name
    assert there.events_read == here.events_read
    left = sorted(p.name for p in Path(shop.settings.lake).iterdir())
    assert left == ["events", "partition_log"], "the uploaded spine is gone"


def test_an_empty_spine_gives_an_empty_set_with_the_same_types(shop: Shop, tmp_path: Path) -> None:
    (_, local), (_, spark) = on_both(shop, tmp_path, shop_spine().slice(0, 0), hindsight=False)
    assert spark.equals(local)


def test_spark_counts_the_entities_that_this_process_counts(shop: Shop) -> None:
    at_ms = pa.array([DAYS.end_ms])
    unserved = [FIRST]
    history = find_history(shop.settings, shop.plan.view("shop_orders"), at_ms)
    here = read_entities(shop.settings, history, unserved)
    spark = connect(shop.settings)
    there = candidates_on_spark(spark, shop.settings, history, unserved, samples=500, seed=1)
    assert (there.count, there.events) == (here.count, here.events)
    assert there.rows.to_pylist() == here.rows.to_pylist()
