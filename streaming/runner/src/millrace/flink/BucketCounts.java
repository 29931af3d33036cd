package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code bucket_counts(value)}: how many values lie in each bucket, by which {@code percentile} is
 * found; {@code millrace.aggregates.buckets} says what the buckets and the bytes are.
 */
public final class BucketCounts extends Encoding {
    private static final long serialVersionUID = 1L;
    private static final int MANTISSA_BITS = 7;
    private static final int DROPPED_BITS = 52 - MANTISSA_BITS;
    private static final int LIFT_BITS = 54;
    private static final int BIAS = 6529;
    private static final int LOWEST = -(1 << 19);

    public BucketCounts() {
        super(
                false,
                false,
                LogicalTypeRoot.INTEGER,
                LogicalTypeRoot.BIGINT,
                LogicalTypeRoot.DOUBLE,
                LogicalTypeRoot.DECIMAL);
    }

    @Override
    protected Kept decoded(byte[] bytes, Object value, int unused) {
        Counts counts = new Counts();
        int at = 0;
        int bucket = LOWEST;
        boolean isCount = false;
        while (bytes != null && at < bytes.length) {
            long number = 0;
            int shift = 0;
            byte part;
            do {
                part = bytes[at++];
                number |= (long) (part & 0x7f) << shift;
                shift += 7;
            } while (part < 0);
            if (isCount) {
                counts.found.put(bucket, number);
            } else {
                bucket += (int) number;
            }
            isCount = !isCount;
        }
        return counts;
    }

    private static double doubleOf(Object value) {
        return value instanceof DecimalData decimal
                ? decimal.toBigDecimal().doubleValue()
                : ((Number) value).doubleValue();
    }

    /** The bucket of a value: {@code bucket_of} there. */
    static int bucketOf(double value) {
        if (value == 0) {
            return 0;
        }
        double size = Math.abs(value);
        int lift = 0;
        if (size < Double.MIN_NORMAL) {
            size *= 0x1p54;
            lift = LIFT_BITS << MANTISSA_BITS;
        }
        int bucket = (int) (Double.doubleToLongBits(size) >> DROPPED_BITS) - lift + BIAS;
        return value > 0 ? bucket : -bucket;
    }

    private static final class Counts implements Kept {
        private final TreeMap<Integer, Long> found = new TreeMap<>();

        @Override
        public boolean add(Object value) {
            found.merge(bucketOf(doubleOf(value)), 1L, Long::sum);
            return true;
        }

        @Override
        public byte[] encoded() {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            int last = LOWEST;
            for (Map.Entry<Integer, Long> entry : found.entrySet()) {
                write(out, entry.getKey() - last);
                write(out, entry.getValue());
                last = entry.getKey();
            }
            return out.toByteArray();
        }

        private static void write(ByteArrayOutputStream out, long number) {
            while (number >= 0x80) {
                out.write((int) (number & 0x7f | 0x80));
                number >>>= 7;
            }
            out.write((int) number);
        }
    }
}
