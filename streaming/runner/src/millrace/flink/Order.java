package millrace.flink;

import java.util.Arrays;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.StringData;

/** How values in Flink's own form compare, as they do in Python and Spark. */
final class Order {
    private Order() {}

    /** Compares two values of one type; null comes first. */
    static int compare(Object one, Object other) {
        if (one == null || other == null) {
            return Boolean.compare(one != null, other != null);
        }
        if (one instanceof StringData text) {
            return Arrays.compareUnsigned(text.toBytes(), ((StringData) other).toBytes());
        }
        if (one instanceof byte[] bytes) {
            return Arrays.compareUnsigned(bytes, (byte[]) other);
        }
        if (one instanceof Double number) {
            // Not Double.compare: the two zeros are equal.
            double another = (Double) other;
            return number < another ? -1 : number > another ? 1 : 0;
        }
        if (one instanceof ArrayData vector) {
            return compare(vector.toFloatArray(), ((ArrayData) other).toFloatArray());
        }
        if (one instanceof DecimalData decimal) {
            return decimal.compareTo((DecimalData) other);
        }
        if (one instanceof Boolean flag) {
            return Boolean.compare(flag, (Boolean) other);
        }
        return one instanceof Integer number
                ? Integer.compare(number, (Integer) other)
                : Long.compare((Long) one, (Long) other);
    }

    /** Compares by the first element that differs; the two zeros do not. */
    private static int compare(float[] one, float[] other) {
        for (int i = 0; i < one.length; i++) {
            if (one[i] != other[i]) {
                return one[i] < other[i] ? -1 : 1;
            }
        }
        return 0;
    }
}
