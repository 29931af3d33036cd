"""Sums without rounding, from int64 arrays.

A column is written as a sum of terms ``limb_k * 2^(exponent + bits * k)`` with small integer limbs,
for doubles on the common power-of-two grid of a column (a superaccumulator: Kulisch, "Computer
Arithmetic and Validity", 2008). Limbs are added up by running int64 sums, which never round and so
may be subtracted; carries are resolved once, per answer. Nothing cancels, whatever the magnitudes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.kernel.axis import Bools, Int64s

Doubles = npt.NDArray[np.float64]
UInt64s = npt.NDArray[np.uint64]

WORD_BITS = 32
# Products of two balanced digits of this size, and sums of many of their halves, stay in int64.
DOUBLE_BITS = 30
_MANTISSA_BITS = 53
_HALF_MANTISSA = 27
_SAFE = 2**62
_EXACT_TENS = 22  # 10^22 is the largest power of ten that is a double


@dataclass(frozen=True)
class Terms:
    """An integer column cut into limbs, made one at a time.

    Attributes:
        bits: width of a limb.
        exponent: the lowest limb counts units of 2^exponent.
        length: number of limbs; 0 for a column of zeros.
        limb: returns the k-th limb of each row.
    """

    bits: int
    exponent: int
    length: int
    limb: Callable[[int], Int64s]


def integer_terms(values: Int64s) -> Terms:
    """Cut int64; one limb if no sum over the column can leave int64."""
    largest = max(-int(values.min()), int(values.max())) if len(values) else 0
    if largest * len(values) < _SAFE:
        return Terms(WORD_BITS, 0, 1, lambda _: values)
    return Terms(WORD_BITS, 0, 2, lambda k: values >> WORD_BITS if k else values & 0xFFFF_FFFF)


def word_terms(low: Int64s, high: Int64s) -> Terms:
    """Cut 128-bit integers given as the bits of the low word and the signed high word."""
    limbs = (
        lambda: low & 0xFFFF_FFFF,
        lambda: (low >> WORD_BITS) & 0xFFFF_FFFF,
        lambda: high & 0xFFFF_FFFF,
        lambda: high >> WORD_BITS,
    )
    return Terms(WORD_BITS, 0, len(limbs), lambda k: limbs[k]())


def double_terms(values: Doubles) -> Terms:
    """Cut finite doubles on the grid of the column's finest bit."""
    sign, mantissa, exponent = _decompose(values)
    if not mantissa.any():
        return Terms(DOUBLE_BITS, 0, 0, lambda _: sign)
    grid, length = _grid(mantissa, exponent)
    shift = exponent - grid
    return Terms(
        DOUBLE_BITS, grid, length, lambda k: sign * _bits_at(mantissa, shift - DOUBLE_BITS * k)
    )


def square_terms(values: Doubles) -> Terms:
    """Cut the exact squares of finite doubles; the grid is the square of ``double_terms``'s."""
    _, mantissa, exponent = _decompose(values)
    if not mantissa.any():
        return Terms(DOUBLE_BITS, 0, 0, lambda _: mantissa.astype(np.int64))
    grid, length = _grid(mantissa, exponent)
    shift = 2 * (exponent - grid)
    upper = mantissa >> np.uint64(_HALF_MANTISSA)
    lower = mantissa & np.uint64((1 << _HALF_MANTISSA) - 1)
    parts = (
        (lower * lower, 0),
        (lower * upper, _HALF_MANTISSA + 1),
        (upper * upper, 2 * _HALF_MANTISSA),
    )

    def limb(k: int) -> Int64s:
        pieces = [_bits_at(product, shift + (up - DOUBLE_BITS * k)) for product, up in parts]
        return pieces[0] + pieces[1] + pieces[2]

    return Terms(DOUBLE_BITS, 2 * grid, 2 * length, limb)


def _decompose(values: Doubles) -> tuple[Int64s, UInt64s, Int64s]:
    """Return sign, odd 53-bit mantissa and exponent; the exponent of a zero is meaningless."""
    fraction, exponent = np.frexp(np.abs(values))
    mantissa = np.ldexp(fraction, _MANTISSA_BITS).astype(np.uint64)
    lowest_bit = (mantissa & (~mantissa + np.uint64(1))).astype(np.float64)
    trailing = np.maximum(np.frexp(lowest_bit)[1] - 1, 0)
    mantissa >>= trailing.astype(np.uint64)
    sign = np.where(values < 0, np.int64(-1), np.int64(1))
    return sign, mantissa, exponent.astype(np.int64) - _MANTISSA_BITS + trailing


def _grid(mantissa: UInt64s, exponent: Int64s) -> tuple[int, int]:
    """Return the exponent of the column's finest bit, and how many limbs reach the highest."""
    some = mantissa != 0
    grid = int(exponent[some].min())
    highest = int((exponent + np.frexp(mantissa.astype(np.float64))[1])[some].max())
    return grid, -(-(highest - grid) // DOUBLE_BITS)


def _bits_at(integers: UInt64s, shift: Int64s) -> Int64s:
    """Return the low limb of ``integers * 2^shift``, for any shift."""
    up = np.clip(shift, 0, 63).astype(np.uint64)
    down = np.clip(-shift, 0, 63).astype(np.uint64)
    limb = ((integers << up) >> down) & np.uint64((1 << DOUBLE_BITS) - 1)
    return limb.astype(np.int64)


def to_words(sums: Sequence[Int64s]) -> tuple[Int64s, Int64s, Bools | None]:
    """Resolve the carries of ``WORD_BITS`` limb sums.

    Returns:
        low word (its bits), high word, and where they hold the sum; None if everywhere.
    """
    if len(sums) == 1:
        return sums[0], sums[0] >> 63, None
    digits, carry = [], np.zeros_like(sums[0])
    for part in sums:
        carry = carry + part
        digits.append(carry & 0xFFFF_FFFF)
        carry >>= WORD_BITS
    low = digits[0] | (digits[1] << WORD_BITS)
    if not digits[2:]:
        return low, carry, None
    high = digits[2] | (digits[3] << WORD_BITS)
    fits: Bools = carry == high >> 63
    return low, high, fits


def below_power_of_ten(low: Int64s, high: Int64s, power: int) -> Bools:
    """Tell where a 128-bit integer has at most ``power`` decimal digits."""
    negative = high < 0
    bottom = np.where(negative, -low, low).view(np.uint64)
    top = np.where(negative, ~high + (low == 0), high).view(np.uint64)
    limit_top, limit_bottom = divmod(10**power, 1 << 64)
    below: Bools = (top < limit_top) | ((top == limit_top) & (bottom < limit_bottom))
    return below


def to_scaled(sums: Sequence[Int64s], terms: Terms, rows: int) -> tuple[Doubles, Int64s]:
    """Round limb sums once, to ``fraction * 2^exponent``.

    The exponent is kept apart because a sum can lie outside the doubles while its mean does not.
    """
    return _round(_balanced(sums, terms.bits), terms.bits, terms.exponent, rows)


def _balanced(sums: Sequence[Int64s], bits: int) -> list[Int64s]:
    """Resolve carries into digits of ``[-2^(bits-1), 2^(bits-1))``.

    The highest digit that is not zero then outweighs all below it, so rounding cannot cancel.
    """
    half, mask = 1 << (bits - 1), (1 << bits) - 1
    digits: list[Int64s] = []
    carry: Int64s | None = None
    for part in sums:
        total = part if carry is None else part + carry
        digit = ((total + half) & mask) - half
        carry = (total - digit) >> bits
        digits.append(digit)
    while carry is not None and carry.any():
        digit = ((carry + half) & mask) - half
        carry = (carry - digit) >> bits
        digits.append(digit)
    return digits


def _round(digits: Sequence[Int64s], bits: int, exponent: int, rows: int) -> tuple[Doubles, Int64s]:
    shrink = 2.0**-bits
    head, tail = np.zeros(rows), np.zeros(rows)  # double-double, in units of the current digit
    best, place = np.zeros(rows), np.zeros(rows, np.int64)
    for k, digit in enumerate(digits):
        head *= shrink
        tail *= shrink
        top = digit.astype(np.float64)
        total = top + head
        back = total - top
        tail += (top - (total - back)) + (head - back)
        head = total
        some = digit != 0
        best = np.where(some, head + tail, best)
        place[some] = k
    return best, place * bits + exponent


def squared_deviations(
    sums: Sequence[Int64s], squares: Sequence[Int64s], count: Int64s, exponent: int
) -> tuple[Doubles, Int64s]:
    """Return ``n Σv² - (Σv)²``, exact until it is rounded once, to ``fraction * 2^exponent``.

    Args:
        sums: limb sums of ``double_terms``.
        squares: limb sums of ``square_terms`` of the same column.
        count: n.
        exponent: that of ``square_terms``.
    """
    first = _balanced(sums, DOUBLE_BITS)
    second = _balanced(squares, DOUBLE_BITS)
    rows = len(count)
    slots = [np.zeros(rows, np.int64) for _ in range(max(2 * len(first), len(second)) + 1)]
    for k, digit in enumerate(second):
        _add_product(slots, k, count * digit)
    for i, a in enumerate(first):
        _add_product(slots, 2 * i, -(a * a))
        for j in range(i):
            product = a * first[j]
            _add_product(slots, i + j, -product)
            _add_product(slots, i + j, -product)
    return _round(_balanced(slots, DOUBLE_BITS), DOUBLE_BITS, exponent, rows)


def _add_product(slots: list[Int64s], k: int, product: Int64s) -> None:
    slots[k] += product & ((1 << DOUBLE_BITS) - 1)
    slots[k + 1] += product >> DOUBLE_BITS


def decimal_doubles(low: Int64s, high: Int64s | None, scale: int) -> Doubles:
    """Return the doubles nearest to decimals given as unscaled 64- or 128-bit integers."""
    limit = 1 << _MANTISSA_BITS
    if high is None and scale <= _EXACT_TENS and bool(((low > -limit) & (low < limit)).all()):
        quotients: Doubles = low / 10.0**scale  # both exact: one rounding
        return quotients
    return _ratio(*_double_double(low, high), scale)


def _double_double(low: Int64s, high: Int64s | None) -> tuple[Doubles, Doubles]:
    """Return an integer as head + tail, to 106 bits."""
    if high is None:
        head = (low & ~0xFFFF_FFFF).astype(np.float64)
        tail = (low & 0xFFFF_FFFF).astype(np.float64)
        return _two_sum(head, tail)
    negative = high < 0
    bottom = np.where(negative, -low, low)
    top = np.where(negative, ~high + (low == 0), high)
    head, tail = np.zeros(len(low)), np.zeros(len(low))
    for word in (top, bottom):
        for part in ((word >> WORD_BITS) & 0xFFFF_FFFF, word & 0xFFFF_FFFF):
            head, error = _two_sum(head * 2.0**WORD_BITS, part.astype(np.float64))
            head, tail = _two_sum(head, tail * 2.0**WORD_BITS + error)
    sign = np.where(negative, -1.0, 1.0)
    return head * sign, tail * sign


def _ratio(head: Doubles, tail: Doubles, scale: int) -> Doubles:
    """Divide a double-double by a power of ten and round."""
    power = 10**scale
    divisor = float(power)
    rest = float(power - int(divisor))
    quotient = head / divisor
    product, error = _two_product(quotient, divisor)
    remainder = (head - product) - error + tail - quotient * rest
    return quotient + remainder / divisor


def _two_sum(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    """Return the rounded sum and its error (Knuth)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _two_product(a: Doubles, b: float) -> tuple[Doubles, Doubles]:
    """Return the rounded product and its error (Dekker's split)."""
    split = float((1 << _HALF_MANTISSA) + 1)
    product = a * b
    a_big = split * a
    a_high = a_big - (a_big - a)
    b_big = split * b
    b_high = b_big - (b_big - b)
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (
        ((product - a_high * b_high) - a_low * b_high) - a_high * b_low
    )
