"""Up to when everything is stored: what follows from where the topics stand, second by second."""

from streaming.writer.progress import Ends, Ladder, PipelineProgress


def at(
    now: int, source: int, committed: int | None, tiles: int, applied: int, *, begin: int = 0
) -> Ends:
    known = {} if committed is None else {0: committed}
    return Ends(now, {0: begin}, {0: source}, known, {0: tiles}, {0: applied})


def test_an_empty_source_is_up_to_date() -> None:
    assert Ladder().climb(at(1_000, 0, None, 0, 0)) == PipelineProgress(1_000, 0, 0)


def test_a_source_that_flink_never_committed_is_not() -> None:
    assert Ladder().climb(at(1_000, 7, None, 3, 3)) == PipelineProgress(None, 7, 0)


def test_records_that_retention_has_dropped_are_no_lag() -> None:
    assert Ladder().climb(at(1_000, 107, None, 0, 0, begin=100)) == PipelineProgress(None, 7, 0)


def test_under_steady_load_progress_trails_by_a_checkpoint() -> None:
    ladder = Ladder()
    reached = []
    for second in range(1, 30):
        sent = 100 * second
        committed = 100 * (second // 10 * 10)  # a checkpoint each ten seconds
        progress = ladder.climb(at(1_000 * second, sent, committed, sent, sent))
        reached.append(progress.progress_ms)
    assert reached[:9] == [None] * 9
    assert reached[9] == 10_000
    assert reached[18] == 10_000
    assert reached[19] == 20_000


def test_what_flink_has_done_counts_once_its_tiles_are_stored() -> None:
    ladder = Ladder()
    assert ladder.climb(at(1_000, 10, 10, 50, 20)).progress_ms is None
    assert ladder.climb(at(2_000, 10, 10, 60, 49)).progress_ms is None
    assert ladder.climb(at(3_000, 10, 10, 70, 50)).progress_ms == 1_000
    assert ladder.climb(at(4_000, 10, 10, 70, 70)) == PipelineProgress(4_000, 0, 0)


def test_a_store_that_lost_tiles_is_up_to_date_only_when_it_has_them_again() -> None:
    ladder = Ladder()
    assert ladder.climb(at(1_000, 10, 10, 50, 50)).progress_ms == 1_000
    assert ladder.climb(at(2_000, 10, 10, 50, 5)) == PipelineProgress(None, 0, 45)
    assert ladder.climb(at(3_000, 10, 10, 50, 49)).progress_ms is None
    assert ladder.climb(at(4_000, 10, 10, 50, 50)).progress_ms == 4_000


def test_a_long_outage_is_remembered_in_bounded_memory() -> None:
    ladder = Ladder()
    for second in range(5_000):
        ladder.climb(at(1_000 * second, second, 0, 0, 0))
    assert len(ladder._sent) <= 600
    caught_up = ladder.climb(at(5_000_000, 5_000, 4_990, 0, 0)).progress_ms
    assert caught_up is not None
    assert 4_900_000 < caught_up <= 4_990_000
