package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.TreeMap;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code value_counts(value, limit)}: the different values, ascending by their bytes, each with how
 * often it occurs; nothing of more than the limit.
 */
public final class ValueCounts extends Encoding {
    private static final long serialVersionUID = 1L;

    public ValueCounts() {
        super(
                false,
                true,
                LogicalTypeRoot.BOOLEAN,
                LogicalTypeRoot.INTEGER,
                LogicalTypeRoot.BIGINT,
                LogicalTypeRoot.DECIMAL,
                LogicalTypeRoot.CHAR,
                LogicalTypeRoot.VARCHAR,
                LogicalTypeRoot.VARBINARY,
                LogicalTypeRoot.DATE);
    }

    @Override
    protected Kept decoded(byte[] bytes, Object value, int limit) {
        Counts counts = new Counts(limit);
        counts.isOver = bytes != null && bytes.length == 0;
        ByteBuffer rest = ByteBuffer.wrap(bytes == null ? new byte[0] : bytes);
        while (rest.hasRemaining()) {
            int begin = rest.position();
            readValue(rest, value);
            byte[] one = Arrays.copyOfRange(bytes, begin, rest.position());
            counts.found.put(one, rest.getLong());
        }
        return counts;
    }

    private static final class Counts implements Kept {
        private final TreeMap<byte[], Long> found = new TreeMap<>(Arrays::compareUnsigned);
        private final int limit;
        private boolean isOver;

        Counts(int limit) {
            this.limit = limit;
        }

        @Override
        public boolean add(Object value) {
            if (isOver) {
                return false;
            }
            ByteArrayOutputStream one = new ByteArrayOutputStream();
            writeValue(one, value);
            found.merge(one.toByteArray(), 1L, Long::sum);
            if (found.size() > limit) {
                isOver = true;
                found.clear();
            }
            return true;
        }

        @Override
        public byte[] encoded() {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            found.forEach(
                    (value, count) -> {
                        out.writeBytes(value);
                        out.writeBytes(ByteBuffer.allocate(Long.BYTES).putLong(count).array());
                    });
            return out.toByteArray();
        }
    }
}
