package millrace.flink;

import java.time.LocalDate;
import java.time.Month;
import java.time.Year;

/**
 * Instants and days from text: {@code YYYY-MM-DD[(T| )HH:MM[:SS[.1-9 digits]]][Z|±HH:MM|±HHMM]}.
 *
 * <p>Without a zone the time is in UTC. What is finer than a millisecond is floored.
 */
final class Instants {
    /** 0001-01-01T00:00Z and the last millisecond of 9999. */
    private static final long FIRST_MS = -62_135_596_800_000L;

    private static final long LAST_MS = 253_402_300_799_999L;

    private static final int DATE_LENGTH = 10;
    private static final long DAY_MS = 86_400_000L;
    private static final int MINUTE_MS = 60_000;
    private static final int MOST_FRACTION_DIGITS = 9;

    private final char[] text;
    private final int end;
    private int at;
    private boolean isFit = true;

    private Instants(char[] text, int start, int length) {
        this.text = text;
        this.at = start;
        this.end = start + length;
    }

    /** Epoch milliseconds; null if the text is not an instant. */
    static Long epochMs(char[] text, int start, int length) {
        Instants reader = new Instants(text, start, length);
        long ms = reader.date() * DAY_MS;
        if (reader.at < reader.end && (text[reader.at] == 'T' || text[reader.at] == ' ')) {
            reader.at++;
            ms += reader.timeOfDayMs();
        }
        ms -= reader.zoneMs();
        return reader.isFit && reader.at == reader.end ? ms : null;
    }

    /** The instant itself if it lies within the years 1 to 9999, else null. */
    static Long inCalendar(Long ms) {
        return ms == null || ms < FIRST_MS || ms > LAST_MS ? null : ms;
    }

    /** Days since 1970-01-01; null if the text is not a day. */
    static Integer epochDay(char[] text, int start, int length) {
        Instants reader = new Instants(text, start, length);
        long day = reader.date();
        return reader.isFit && length == DATE_LENGTH ? (int) day : null;
    }

    private long date() {
        int year = digits(4);
        expect('-');
        int month = digits(2);
        expect('-');
        int day = digits(2);
        if (!isFit || year == 0 || month < 1 || month > 12 || day < 1) {
            isFit = false;
            return 0;
        }
        if (day > Month.of(month).length(Year.isLeap(year))) {
            isFit = false;
            return 0;
        }
        return LocalDate.of(year, month, day).toEpochDay();
    }

    private long timeOfDayMs() {
        int hour = digits(2);
        expect(':');
        int minute = digits(2);
        int second = 0;
        int ms = 0;
        if (skip(':')) {
            second = digits(2);
            ms = skip('.') ? fractionMs() : 0;
        }
        isFit &= hour < 24 && minute < 60 && second < 60;
        return (hour * 60L + minute) * MINUTE_MS + second * 1000L + ms;
    }

    private int fractionMs() {
        int ms = 0;
        int count = 0;
        while (at < end && isDigit(text[at])) {
            if (count < 3) {
                ms = ms * 10 + text[at] - '0';
            }
            at++;
            count++;
        }
        isFit &= count >= 1 && count <= MOST_FRACTION_DIGITS;
        return count == 1 ? ms * 100 : count == 2 ? ms * 10 : ms;
    }

    private long zoneMs() {
        if (at == end || skip('Z')) {
            return 0;
        }
        int sign = skip('+') ? 1 : skip('-') ? -1 : 0;
        int hours = digits(2);
        skip(':');
        int minutes = digits(2);
        isFit &= sign != 0 && hours < 24 && minutes < 60;
        return sign * (hours * 60L + minutes) * MINUTE_MS;
    }

    private int digits(int count) {
        int value = 0;
        for (int i = 0; i < count; i++) {
            if (at >= end || !isDigit(text[at])) {
                isFit = false;
                return 0;
            }
            value = value * 10 + text[at++] - '0';
        }
        return value;
    }

    private void expect(char wanted) {
        isFit &= skip(wanted);
    }

    private boolean skip(char wanted) {
        if (at < end && text[at] == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private static boolean isDigit(char c) {
        return c >= '0' && c <= '9';
    }
}
