package millrace.flink;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** What a strict reader asks of JSON's bytes before and beyond what the parser asks. */
final class JsonText {
    private static final VarHandle EIGHT_BYTES =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    private static final long HIGH_BITS = 0x8080808080808080L;
    private static final long LOW_BITS = 0x0101010101010101L;
    private static final long BACKSLASHES = 0x5c5c5c5c5c5c5c5cL;

    private static final int NOT_HEX = -1;

    private JsonText() {}

    /**
     * Whether the bytes are UTF-8 without a byte order mark, and no escape in them is half of a
     * surrogate pair. Outside of strings a backslash is no JSON, so all of them count as escapes.
     */
    static boolean isSound(byte[] text) {
        int length = text.length;
        if (length == 0 || looksLikeAnotherEncoding(text)) {
            return false;
        }
        int i = 0;
        while (i < length) {
            if (i + Long.BYTES <= length && isPlain((long) EIGHT_BYTES.get(text, i))) {
                i += Long.BYTES;
                continue;
            }
            byte b = text[i];
            int step = b == '\\' ? escapeLength(text, i) : b >= 0 ? 1 : sequenceLength(text, i);
            if (step == 0) {
                return false;
            }
            i += step;
        }
        return true;
    }

    /** The parser would guess UTF-16 and UTF-32 by zero bytes, and skip a byte order mark. */
    private static boolean looksLikeAnotherEncoding(byte[] text) {
        for (int i = 0; i < Math.min(text.length, 4); i++) {
            if (text[i] == 0) {
                return true;
            }
        }
        return text.length >= 3
                && text[0] == (byte) 0xEF
                && text[1] == (byte) 0xBB
                && text[2] == (byte) 0xBF;
    }

    /** Eight ASCII characters, none a backslash. */
    private static boolean isPlain(long eight) {
        long differences = eight ^ BACKSLASHES;
        long zeros = (differences - LOW_BITS) & ~differences;
        return ((eight | zeros) & HIGH_BITS) == 0;
    }

    /** Length of a well-formed sequence of two to four bytes (RFC 3629); 0 if it is not one. */
    private static int sequenceLength(byte[] text, int at) {
        int lead = text[at] & 0xFF;
        int length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
        if (lead < 0xC2 || lead > 0xF4 || at + length > text.length) {
            return 0;
        }
        int second = text[at + 1] & 0xFF;
        int least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        int most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (second < least || second > most) {
            return 0;
        }
        for (int i = 2; i < length; i++) {
            if ((text[at + i] & 0xC0) != 0x80) {
                return 0;
            }
        }
        return length;
    }

    /** Length of an escape, of both halves of a pair; 0 if a surrogate is alone. */
    private static int escapeLength(byte[] text, int at) {
        if (at + 1 >= text.length || text[at + 1] != 'u') {
            return 2;
        }
        int first = fourHexDigits(text, at);
        if (first == NOT_HEX || Character.isLowSurrogate((char) first)) {
            return 0;
        }
        if (!Character.isHighSurrogate((char) first)) {
            return 6;
        }
        int second = fourHexDigits(text, at + 6);
        return second != NOT_HEX && Character.isLowSurrogate((char) second) ? 12 : 0;
    }

    /** The code unit that <code>&#92;uXXXX</code> at a place stands for. */
    private static int fourHexDigits(byte[] text, int at) {
        if (at + 6 > text.length || text[at] != '\\' || text[at + 1] != 'u') {
            return NOT_HEX;
        }
        int value = 0;
        for (int i = at + 2; i < at + 6; i++) {
            int digit = text[i] < 0 ? NOT_HEX : Character.digit(text[i], 16);
            if (digit == NOT_HEX) {
                return NOT_HEX;
            }
            value = value << 4 | digit;
        }
        return value;
    }
}
