"""Where a training set is computed when nobody says, and how rows come back from Spark."""

from dataclasses import replace

import pyarrow as pa
import pytest

from millrace.errors import EngineError, EngineUnavailable
from millrace.kernel.view import KernelView
from millrace.plan import ViewPlan
from millrace.resolve import resolve
from millrace.spec import BatchSource, Entity, Feature, FeatureView, Source, Specs
from offline.tables.history import History
from offline.training import sets as training
from offline.training.requested_features import RequestedFeatures, request_features
from offline.training.sets import choose_engine
from offline.training.spark_join import _in_order, _unpacked
from offline.training.spine_task import packed
from resources.settings import Settings, settings_from_env

RAW = BatchSource("parquet", "orders.parquet")
SOURCE = Source("orders", {"ts": "timestamp", "who": "int64"}, "ts", batch=RAW)
VIEW = FeatureView("buyers", ("buyer",), "orders", "2024-01-01", (Feature("n", "count", "1h"),))


@pytest.fixture
def request_of_one() -> RequestedFeatures:
    plan = resolve(Specs((SOURCE,), (Entity("buyer", "who", "int64"),), (VIEW,)))
    return request_features(plan, ["n"])


@pytest.fixture
def here() -> Settings:
    return replace(settings_from_env({}), lake="/somewhere/lake")


def history_of(view: ViewPlan, rows: int) -> History:
    return History(view, "events/orders", 0, (), rows, has_null_keys=False, warnings=())


def test_a_spark_that_died_is_asked_once_more(
    here: Settings, request_of_one: RequestedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    asked = request_of_one.views[0]

    def join(*_: object, **__: object) -> pa.Table:
        if not (said and "once more" in said[-1]):
            raise EngineUnavailable("Spark died in the middle")
        return pa.table({"n": [1]})

    monkeypatch.setattr(training, "_JOINS", {"spark": join})
    spine = pa.table({"who": [1]})
    _, values = training._join(
        here,
        asked,
        history_of(asked.view, 1),
        spine,
        "spark",
        hindsight=False,
        progress=said.append,
    )
    assert values.num_rows == 1
    assert said[-1] == "buyers: once more, Spark died in the middle"


def test_a_small_history_on_a_local_disk_is_joined_here(
    here: Settings, request_of_one: RequestedFeatures
) -> None:
    history = history_of(request_of_one.views[0].view, 1000)
    assert choose_engine(here, request_of_one, [history], 1000) == "local"
    assert choose_engine(here, request_of_one, [], 0) == "local"


def test_more_than_fits_in_memory_goes_to_spark(
    here: Settings, request_of_one: RequestedFeatures
) -> None:
    history = history_of(request_of_one.views[0].view, 10**12)
    assert choose_engine(here, request_of_one, [history], 10) == "spark"
    assert choose_engine(here, request_of_one, [], 10**12) == "spark"


def test_a_lake_in_a_bucket_goes_to_spark(
    here: Settings, request_of_one: RequestedFeatures
) -> None:
    bucket = replace(here, lake="s3a://bucket/lake")
    assert choose_engine(bucket, request_of_one, [], 10) == "spark"


def answer(rows: list[int]) -> pa.Table:
    """Return what the tasks answer for these row numbers, as Spark hands it over."""
    table = pa.table({"n": [10 * row for row in rows], "_row": pa.array(rows, pa.int64())})
    return pa.Table.from_batches([packed(table.slice(0, 2)), packed(table.slice(2))])


def test_rows_from_spark_come_back_in_the_spines_order(request_of_one: RequestedFeatures) -> None:
    view = KernelView.of(request_of_one.views[0].view)
    unpacked = _unpacked(answer([3, 0, 2, 1]).column("packed"), view)
    assert _in_order(unpacked, 4, "here").to_pydict() == {"n": [0, 10, 20, 30]}


@pytest.mark.parametrize("rows", [[0, 1, 3], [0, 1, 1, 3]])
def test_a_row_that_spark_lost_or_doubled_is_an_error(
    request_of_one: RequestedFeatures, rows: list[int]
) -> None:
    view = KernelView.of(request_of_one.views[0].view)
    unpacked = _unpacked(answer(rows).column("packed"), view)
    with pytest.raises(EngineError) as caught:
        _in_order(unpacked, 4, "view buyers")
    assert f"Spark gave {len(rows)} rows back for 4 of the spine" in str(caught.value)
