"""Exact sums at the borders of their representations."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from millrace.kernel import exact
from millrace.kernel.axis import Int64s
from tests import reference
from tests.support.kernel_cases import Query, kernel_values

WIDEST = 10**38 - 1


def words(values: list[int]) -> tuple[Int64s, Int64s]:
    low = np.array([v & (2**64 - 1) for v in values], np.uint64).view(np.int64)
    return low, np.array([v >> 64 for v in values], np.int64)


def joined(low: Int64s, high: Int64s) -> list[int]:
    pairs = zip(low.view(np.uint64).tolist(), high.tolist(), strict=True)
    return [(h << 64) + w for w, h in pairs]


def sums_of(terms: exact.Terms) -> list[Int64s]:
    return [np.array([terms.limb(k).sum()]) for k in range(terms.length)]


@pytest.mark.parametrize("power", [20, 38])
def test_digits_of_128_bit_integers_are_counted_exactly(power: int) -> None:
    limit = 10**power
    word = 2**64
    edges = [limit - 1, limit, limit // word * word, (limit // word + 1) * word, 0, 1]
    values = [sign * v for v in edges for sign in (1, -1)]
    got = exact.below_power_of_ten(*words(values), power)
    assert got.tolist() == [abs(v) < limit for v in values]


@pytest.mark.parametrize(
    "values",
    [
        [2**63 - 1] * 5,
        [-(2**63)] * 5,
        [-1, 1, -1],
        [2**63 - 1, -(2**63), -1],
    ],
)
def test_sums_of_int64_extremes_are_exact_128_bit_integers(values: list[int]) -> None:
    low, high, fits = exact.to_words(sums_of(exact.integer_terms(np.array(values))))
    assert fits is None
    assert joined(low, high) == [sum(values)]


@pytest.mark.parametrize("copies", range(1, 12))
@pytest.mark.parametrize("value", [WIDEST, -WIDEST, 10**20, -(2**64), -1])
def test_sums_of_wide_decimals_are_exact_or_said_not_to_fit(value: int, copies: int) -> None:
    low, high, fits = exact.to_words(sums_of(exact.word_terms(*words([value] * copies))))
    total = value * copies
    assert fits is not None
    assert fits.tolist() == [-(2**127) <= total < 2**127]
    if fits[0]:
        assert joined(low, high) == [total]


@pytest.mark.parametrize("copies", range(1, 12))
def test_a_decimal_sum_of_more_than_38_digits_is_null(copies: int) -> None:
    with localcontext(prec=60):
        value = Decimal(WIDEST).scaleb(-10)
    events = [reference.Event("k", i, i, value) for i in range(copies)]
    feature = reference.Feature("sum", None, 1000, type="decimal(38,10)")
    got = kernel_values(events, [feature], [Query("k", 100)])
    assert got == [[value if copies == 1 else None]]


def test_an_integer_sum_outside_int64_is_null_and_its_mean_is_not() -> None:
    events = [reference.Event("k", i, i, 2**63 - 1) for i in range(2)]
    features = [reference.Feature(a, None, 1000) for a in ("sum", "avg")]
    assert kernel_values(events, features, [Query("k", 9)]) == [[None, 2.0**63]]


@pytest.mark.parametrize(
    "values",
    [
        [0.1] * 3,
        [1e300, 1.0, -1e300],
        [5e-324, -1e308, 1e308],
        [2.0**60, -(2.0**30), -1.0, 2.0**-60],
        [-1.0, 2.0**-200],
        [0.0, -0.0],
    ],
)
def test_a_sum_of_doubles_is_the_exact_sum_rounded_once(values: list[float]) -> None:
    terms = exact.double_terms(np.array(values))
    fraction, exponent = exact.to_scaled(sums_of(terms), terms, 1)
    assert np.ldexp(fraction, exponent)[0] == float(sum(map(Fraction, values)))


@pytest.mark.parametrize("scale", [0, 2, 18, 22, 30, 38])
def test_decimals_become_the_nearest_doubles(scale: int) -> None:
    unscaled = [0, 1, -1, 3, 2**53 + 1, -(2**53) - 3, 10**18 - 1, -(10**18) + 1, 7 * 10**15 + 1]
    wide = [*unscaled, WIDEST, -WIDEST, 10**37 + 1, -(2**64), 2**64 - 1]
    narrow = exact.decimal_doubles(np.array(unscaled), None, scale)
    assert narrow.tolist() == [float(Fraction(u, 10**scale)) for u in unscaled]
    broad = exact.decimal_doubles(*words(wide), scale)
    assert broad.tolist() == [float(Fraction(u, 10**scale)) for u in wide]
