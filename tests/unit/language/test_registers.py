"""The estimates of approx_distinct: as far off as is said, from bytes that are the same."""

import math
import random
import statistics
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millrace.aggregates import AGGREGATES, Place
from millrace.aggregates.registers import RankRegisters, estimate, hash_of
from millrace.kernel.columns import read_measure
from millrace.kernel.registers import hashes
from millrace.types import BYTES, INT64, STRING
from millrace.values.arrow import arrow_type

ANYWHERE = Place(0, 0)


def state_of(precision: int, values: Any) -> Any:
    algebra = RankRegisters(INT64, precision)
    data = algebra.encode_all(values, None)
    return algebra.init() if data is None else algebra.decode(data)


@pytest.mark.parametrize("precision", [8, 12])
@pytest.mark.parametrize("count", [1, 10, 1_000, 20_000])
def test_the_error_is_what_is_said_and_no_bias(precision: int, count: int) -> None:
    trials = 40 if count < 20_000 else 12
    errors = []
    for trial in range(trials):
        values = range(trial * 10**9, trial * 10**9 + count)
        errors.append(estimate(precision, state_of(precision, values)[0]) / count - 1)
    said = 1.04 / math.sqrt(2**precision)
    # Chance alone takes these bounds, of so many trials, less than once in ten thousand runs.
    assert math.sqrt(statistics.fmean(e * e for e in errors)) < said * (1 + 2.8 / math.sqrt(trials))
    assert abs(statistics.fmean(errors)) < 4 * said / math.sqrt(trials)


def test_order_and_grouping_change_no_byte() -> None:
    algebra, chance = RankRegisters(INT64, 8), random.Random(5)
    values = [chance.randrange(200) for _ in range(400)]
    whole = algebra.encode_all(values, None)
    states = [algebra.init() for _ in range(7)]
    for value in chance.sample(values, len(values)):
        place = chance.randrange(len(states))
        states[place] = algebra.update(states[place], value, ANYWHERE)
    merged = algebra.init()
    for state in states:
        (data,) = algebra.pack(state)
        merged = algebra.merge(merged, algebra.unpack((data,)))
    assert algebra.encode(merged) == whole


@pytest.mark.parametrize("count", [1, 85, 86, 3000])
def test_bytes_are_sparse_while_that_is_shorter(count: int) -> None:
    algebra = RankRegisters(INT64, 8)
    state = state_of(8, range(count))
    data = algebra.encode(state)
    assert data is not None
    assert len(data) == (3 * len(state[0]) if 3 * len(state[0]) < 256 else 256)
    assert algebra.decode(data) == state


def test_nothing_is_none() -> None:
    bound = AGGREGATES["approx_distinct"].bind(INT64)
    assert bound.empty == 0
    assert bound.algebra.pack(bound.algebra.init()) == (None,)


@pytest.mark.parametrize("type_", [STRING, BYTES])
def test_texts_of_any_length_hash_alike_everywhere(type_: Any) -> None:
    texts = ["é" * n + "x" * m for n in range(4) for m in range(20)]
    values = texts if type_ == STRING else [text.encode() for text in texts]
    column, _ = read_measure(
        pa.chunked_array([pa.array(values, arrow_type(type_))]), type_, ordered=True
    )
    wanted = np.array([hash_of(text.encode()) for text in texts], np.uint64)
    assert hashes(column).tolist() == wanted.tolist()
