package millrace.flink;

import java.math.BigDecimal;
import java.math.BigInteger;
import org.apache.flink.table.data.DecimalData;

/** Decimals from JSON's numbers, exact or not at all. */
final class Decimals {
    /** So many digits always fit a long. */
    private static final int LONG_DIGITS = 18;

    private static final int MOST_EXPONENT_DIGITS = 9;

    /** Stands for any exponent of more digits: so far, only a zero fits a decimal. */
    private static final int FAR = 1_000_000_000;

    private Decimals() {}

    /**
     * The number as {@code DECIMAL(precision, scale)}; null if the text is not a JSON number, or
     * one that would have to be rounded or has too many digits.
     */
    static DecimalData read(char[] text, int start, int length, int precision, int scale) {
        int end = start + length;
        int at = start < end && text[start] == '-' ? start + 1 : start;
        boolean isNegative = at > start;
        int whole = at;
        at = afterDigits(text, at, end);
        if (at == whole || text[whole] == '0' && at > whole + 1) {
            return null;
        }
        int point = at;
        if (at < end && text[at] == '.') {
            at = afterDigits(text, at + 1, end);
            if (at == point + 1) {
                return null;
            }
        }
        int digitsEnd = at;
        int exponent = 0;
        if (at < end && (text[at] == 'e' || text[at] == 'E')) {
            int digits = at + 1;
            boolean isDown = digits < end && text[digits] == '-';
            if (isDown || digits < end && text[digits] == '+') {
                digits++;
            }
            at = afterDigits(text, digits, end);
            if (at == digits) {
                return null;
            }
            while (digits < at - 1 && text[digits] == '0') {
                digits++;
            }
            boolean isFar = at - digits > MOST_EXPONENT_DIGITS;
            exponent = isFar ? FAR : Integer.parseInt(new String(text, digits, at - digits));
            exponent = isDown ? -exponent : exponent;
        }
        if (at != end) {
            return null;
        }
        return build(text, whole, point, digitsEnd, exponent, isNegative, precision, scale);
    }

    /**
     * Shifts the digits of {@code text[whole, digitsEnd)}, with a point at {@code point}, to the
     * scale.
     */
    private static DecimalData build(
            char[] text,
            int whole,
            int point,
            int digitsEnd,
            int exponent,
            boolean isNegative,
            int precision,
            int scale) {
        // Without leading and trailing zeros, so that nothing below depends on how it was written.
        int first = whole;
        while (first < digitsEnd && (text[first] == '0' || text[first] == '.')) {
            first++;
        }
        int last = digitsEnd;
        while (last > first && (text[last - 1] == '0' || text[last - 1] == '.')) {
            last--;
        }
        if (first == last) {
            return DecimalData.zero(precision, scale);
        }
        boolean holdsPoint = first < point && point < last;
        int digits = last - first - (holdsPoint ? 1 : 0);
        // The last digit stands for 10^power.
        int power = exponent + (last <= point ? point - last : point + 1 - last);
        int zeros = power + scale;
        if (zeros < 0 || digits + zeros > precision) {
            return null;
        }
        if (digits + zeros > LONG_DIGITS) {
            return wide(text, first, last, point, zeros, isNegative, precision, scale);
        }
        long unscaled = 0;
        for (int i = first; i < last; i++) {
            unscaled = i == point ? unscaled : unscaled * 10 + text[i] - '0';
        }
        for (int i = 0; i < zeros; i++) {
            unscaled *= 10;
        }
        unscaled = isNegative ? -unscaled : unscaled;
        return precision <= LONG_DIGITS
                ? DecimalData.fromUnscaledLong(unscaled, precision, scale)
                : DecimalData.fromBigDecimal(BigDecimal.valueOf(unscaled, scale), precision, scale);
    }

    private static DecimalData wide(
            char[] text,
            int first,
            int last,
            int point,
            int zeros,
            boolean isNegative,
            int precision,
            int scale) {
        StringBuilder digits = new StringBuilder(precision);
        for (int i = first; i < last; i++) {
            if (i != point) {
                digits.append(text[i]);
            }
        }
        digits.append("0".repeat(zeros));
        BigInteger unscaled = new BigInteger(digits.toString());
        BigDecimal value = new BigDecimal(isNegative ? unscaled.negate() : unscaled, scale);
        return DecimalData.fromBigDecimal(value, precision, scale);
    }

    private static int afterDigits(char[] text, int at, int end) {
        while (at < end && text[at] >= '0' && text[at] <= '9') {
            at++;
        }
        return at;
    }
}
