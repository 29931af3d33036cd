"""The stream job: what it refuses, what its parameters change, and what names it."""

from dataclasses import replace

import pytest

from millrace.aggregates import AGGREGATES
from millrace.compile.flink import FUNCTIONS, FlinkEndpoints, job_id, stream_job
from millrace.errors import UnsupportedByEngine
from millrace.plan import StreamPlan, ViewPlan
from millrace.types import BYTES
from tests.golden.rewrite import golden_plan

VIEWS = golden_plan().views
VIEW = VIEWS["every_aggregate"]


def with_stream(view: ViewPlan, stream: StreamPlan | None) -> ViewPlan:
    return replace(view, source=replace(view.source, stream=stream))


def statement(view: ViewPlan, start: str, endpoints: FlinkEndpoints | None = None) -> str:
    (found,) = (s for s in stream_job(view, endpoints).statements if s.startswith(start))
    return found


def test_a_source_without_a_stream_is_refused() -> None:
    with pytest.raises(UnsupportedByEngine) as caught:
        stream_job(with_stream(VIEW, None))
    assert "the source 'payments' names no stream" in caught.value.what
    assert caught.value.where == "view every_aggregate"


def test_extremes_of_bytes_are_refused() -> None:
    view = VIEWS["typed_values"]
    feature = replace(view.feature("payload_last_1d"), aggregate=AGGREGATES["max"].bind(BYTES))
    with pytest.raises(UnsupportedByEngine) as caught:
        stream_job(replace(view, features=(feature,)))
    assert caught.value.what == "Flink has no max of bytes: it cannot compare them"
    assert "payload_last_1d" in caught.value.where


def test_a_script_ends_each_statement_with_a_line_that_holds_a_semicolon() -> None:
    job = stream_job(VIEW)
    assert [s.strip() for s in job.script.split("\n;\n")] == [*job.statements, ""]
    assert all("\n;\n" not in s for s in job.statements)
    assert job.text.endswith(job.script)


def test_only_the_functions_that_are_used_are_created() -> None:
    def created(view: ViewPlan) -> set[str]:
        script = stream_job(view).script
        return {name for name in FUNCTIONS if f"CREATE TEMPORARY FUNCTION `{name}`" in script}

    assert created(VIEW) == set(FUNCTIONS) - {"utc_day", "vector_sums"}
    assert "vector_sums" in created(VIEWS["typed_values"])
    assert created(VIEWS["pair_filtered"]) == {"parse_json_row", "epoch_ms"}


def test_endpoints_stand_where_the_job_reads_and_writes() -> None:
    endpoints = FlinkEndpoints("broker:9092", tile_topic="tiles")
    source = statement(VIEW, "CREATE TEMPORARY TABLE `source`", endpoints)
    tiles = statement(VIEW, "CREATE TEMPORARY TABLE `tiles`", endpoints)
    assert "'properties.bootstrap.servers' = 'broker:9092'" in source
    assert "'topic' = 'tiles'" in tiles


def test_events_count_from_the_views_start() -> None:
    measured = statement(VIEW, "CREATE TEMPORARY VIEW `measured`")
    assert f"`_event_ms` >= CAST({VIEW.start_ms} AS BIGINT)" in measured


def test_lateness_and_skew_are_judged_per_event_with_both_bounds_in() -> None:
    accepted = statement(VIEW, "CREATE TEMPORARY VIEW `accepted`")
    late = "`paid_at` >= `_ingest_ms` - CAST(3600000 AS BIGINT)"
    future = "`paid_at` <= `_ingest_ms` + CAST(5000 AS BIGINT)"
    assert late in accepted
    assert future in accepted


def test_without_an_event_id_nothing_is_deduplicated() -> None:
    script = stream_job(VIEWS["shopper_lifetime"]).script
    assert "first-copies" not in script
    assert "FROM `accepted`" in script
    assert "'ordered' = 'false'" in script


def test_with_one_the_first_copy_counts_and_is_remembered_through_an_outage() -> None:
    kept = statement(VIEW, "CREATE TEMPORARY TABLE `deduplicated`")
    assert "'id' = 'payment_id'" in kept
    assert "'horizon' = '86400000 ms'" in kept
    assert f"'kept' = '{86400000 + FlinkEndpoints().outage_ms} ms'" in kept
    assert "'ordered' = 'true'" in stream_job(VIEW).script


def test_tiles_before_1970_start_at_the_floor() -> None:
    measured = statement(VIEWS["shopper_lifetime"], "CREATE TEMPORARY VIEW `measured`")
    expected = "`_event_ms` - MOD(MOD(`_event_ms`, 86400000) + 86400000, 86400000)"
    assert expected in measured


def test_state_of_tiles_outlives_lateness_and_an_outage() -> None:
    hop, late, skew, outage = 300_000, 3_600_000, 5_000, 7_200_000
    insert = statement(VIEW, "INSERT", FlinkEndpoints(outage_ms=outage))
    assert f"STATE_TTL('measured' = '{hop + late + skew + outage} ms')" in insert
    kept = stream_job(VIEW, FlinkEndpoints(outage_ms=outage)).configuration["table.exec.state.ttl"]
    assert kept == f"{hop + late + skew + outage} ms"


def test_a_job_id_is_32_hex_digits_and_changes_with_what_it_names() -> None:
    base = job_id(VIEW, "v1", 1)
    others = {
        job_id(VIEW, "v2", 1),
        job_id(VIEW, "v1", 2),
        job_id(replace(VIEW, fingerprint="0" * 16), "v1", 1),
        job_id(replace(VIEW, name="other"), "v1", 1),
    }
    assert base == job_id(VIEW, "v1", 1)
    assert len(base) == 32
    assert int(base, 16) >= 0
    assert base not in others
    assert len(others) == 4
