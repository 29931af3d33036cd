"""Training sets in process, from Delta to file, against the oracle."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import build_app
from millrace.errors import DataError, PlatformError, SpecError
from offline.training.requested_features import request_features, service_features
from offline.training.sets import build_training_set
from resources.settings import settings_from_env
from tests.support.training_cases import (
    ALL_FEATURES,
    FIRST,
    Shop,
    agree,
    expected_values,
    open_shop,
    shop_settings,
    shop_spine,
)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(shop_settings(settings_from_env({}), tmp_path))


@pytest.fixture
def spine(tmp_path: Path) -> Path:
    path = tmp_path / "spine.parquet"
    pq.write_table(shop_spine(), path)
    return path


def check_against_oracle(shop: Shop, out: pa.Table, *, hindsight: bool = False) -> None:
    """Compare every feature of every row."""
    for asked in request_features(shop.plan, ALL_FEATURES).views:
        for feature, column in zip(asked.view.outputs, asked.columns, strict=True):
            got = out.column(column).to_pylist()
            expected = expected_values(shop, asked.view, feature, shop_spine(), hindsight=hindsight)
            wrong = [
                (row, g, e)
                for row, (g, e) in enumerate(zip(got, expected, strict=True))
                if not agree(g, e)
            ]
            assert not wrong, f"{asked.view.name}.{column}: {wrong[:3]}"
            assert any(v not in (None, 0) for v in expected), f"{column} shows nothing"


@pytest.mark.parametrize("hindsight", [False, True])
def test_every_view_and_entity_equals_the_oracle(
    shop: Shop,
    spine: Path,
    tmp_path: Path,
    hindsight: bool,  # noqa: FBT001
) -> None:
    out = tmp_path / "out.parquet"
    report = build_training_set(
        shop.settings, shop.plan, spine, ALL_FEATURES, out, engine="local", hindsight=hindsight
    )
    written = pq.read_table(out)
    assert written.column_names == [*shop_spine().column_names, *report.columns]
    assert written.select(shop_spine().column_names).equals(shop_spine())
    assert report.columns[0] == "shop_orders__n_1h"
    check_against_oracle(shop, written, hindsight=hindsight)


def test_hindsight_sees_more(shop: Shop, spine: Path, tmp_path: Path) -> None:
    known, later = (
        build_training_set(
            shop.settings, shop.plan, spine, ["shop_orders:n_1h"], out, engine="local", hindsight=h
        )
        for h, out in ((False, tmp_path / "known.parquet"), (True, tmp_path / "later.parquet"))
    )
    counts = [sum(pq.read_table(r.out).column("n_1h").to_pylist()) for r in (known, later)]
    assert counts[0] < counts[1]


def test_a_csv_spine_gives_the_same_features(shop: Shop, spine: Path, tmp_path: Path) -> None:
    text = tmp_path / "spine.csv"
    pc.write_csv(shop_spine(), text)
    names = ["cents_sum_1d", "weighed_3d", "pair_n_1d"]
    for out in (tmp_path / "a.parquet", tmp_path / "b.csv"):
        build_training_set(shop.settings, shop.plan, text, names, out, engine="local")
    build_training_set(
        shop.settings, shop.plan, spine, names, tmp_path / "c.parquet", engine="local"
    )
    wanted = pq.read_table(tmp_path / "c.parquet").select(names)
    # The empty key of a CSV is null, so rows of the shop named "" have nothing there.
    named = [s != "" for s in shop_spine().column("shop").to_pylist()]
    from_text = pq.read_table(tmp_path / "a.parquet")
    assert from_text.select(names).filter(named).equals(wanted.filter(named))
    assert from_text.column("label").type == pa.int64()
    in_text = pc.read_csv(tmp_path / "b.csv").select(names)
    assert in_text.filter(named).equals(wanted.filter(named))


def test_an_empty_spine_gives_an_empty_set(shop: Shop, tmp_path: Path) -> None:
    path, out = tmp_path / "none.parquet", tmp_path / "out.parquet"
    pq.write_table(shop_spine().slice(0, 0), path)
    report = build_training_set(shop.settings, shop.plan, path, ALL_FEATURES, out, engine="local")
    written = pq.read_table(out)
    assert (report.rows, report.events_read, written.num_rows) == (0, 0, 0)
    assert written.num_columns == 5 + len(report.columns)


def test_a_refused_request_leaves_the_old_file(shop: Shop, spine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    clash = tmp_path / "clash.parquet"
    pq.write_table(shop_spine().append_column("pair_n_1d", pa.nulls(120)), clash)
    requests: list[tuple[Path, str, type[PlatformError]]] = [
        (spine, "n_1h", SpecError),
        (clash, "pair_n_1d", DataError),
        (tmp_path / "absent.parquet", "pair_n_1d", DataError),
    ]
    for path, name, error in requests:
        with pytest.raises(error):
            build_training_set(shop.settings, shop.plan, path, [name], out, engine="local")
    assert out.read_bytes() == b"old"


def test_rows_without_a_key_or_beyond_the_history_are_warned_of(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "spine.csv"
    path.write_text(f"who,event_timestamp\n1,{FIRST}T03:00:00Z\n,2024-03-07T12:00:00Z\n")
    report = build_training_set(
        shop.settings, shop.plan, path, ["visit_seconds_avg_6h"], tmp_path / "o.csv"
    )
    assert report.engine == "local"
    found = {w.code: w.what for w in report.warnings}
    assert set(found) == {"days_never_built", "null_keys"}
    assert "1 day(s) of events/visits" in found["days_never_built"]
    assert "[2024-03-07, 2024-03-08)" in found["days_never_built"]
    assert "1 of 2 row(s) have no who" in found["null_keys"]


def test_a_source_never_built_names_the_backfill(shop: Shop, spine: Path, tmp_path: Path) -> None:
    settings = replace(shop.settings, lake=str(tmp_path / "other"))
    with pytest.raises(DataError) as caught:
        build_training_set(settings, shop.plan, spine, ["pair_n_1d"], tmp_path / "o.csv")
    assert "millrace backfill pair_orders --start 2024-03-01 --end 2024-03-07" in str(caught.value)


def test_the_command_reports_what_it_built(
    shop: Shop, spine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_LAKE", shop.settings.lake)
    monkeypatch.setenv("MILLRACE_VIEWS", os.fspath(shop.settings.views[0]))
    out = tmp_path / "set.parquet"
    asked = ["training-set", "--spine", str(spine), "--service", "shop_model", "--out", str(out)]
    done = CliRunner().invoke(build_app(), [*asked, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["rows"] == 120
    assert report["features"] == [
        name.split(":")[1] for name in service_features(shop.plan, "shop_model")
    ]
    assert report["engine"] == "local"
    assert report["null_rates"]["n_1h"] == 0
    assert {v["table"] for v in report["views"]} == {"events/orders", "events/visits"}
    assert pq.read_table(out).num_rows == 120
    told = CliRunner().invoke(build_app(), asked)
    assert told.exit_code == 0, told.output
    assert "120 rows" in told.stdout
    assert "last_page_1d" in told.stdout


def test_the_command_wants_features_or_a_service(tmp_path: Path) -> None:
    asked = ["training-set", "--spine", "s.csv", "--out", str(tmp_path / "o.csv")]
    for more in ([], ["--features", "a", "--service", "b"]):
        done = CliRunner().invoke(build_app(), [*asked, *more])
        assert done.exit_code == 2
        assert "either --features or --service" in done.output
