package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.TreeSet;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code distinct_values(value, limit)}: the different values, ascending by their bytes; of more
 * than the limit the first.
 */
public final class DistinctValues extends Encoding {
    private static final long serialVersionUID = 1L;

    public DistinctValues() {
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
        Values values = new Values(varies(value), limit);
        ByteBuffer rest = ByteBuffer.wrap(bytes == null ? new byte[0] : bytes);
        int width = bytesOf(value).length;
        while (rest.hasRemaining()) {
            byte[] one = new byte[values.haveLengths ? rest.getInt() : width];
            rest.get(one);
            values.found.add(one);
        }
        return values;
    }

    private static final class Values implements Kept {
        private final TreeSet<byte[]> found = new TreeSet<>(Arrays::compareUnsigned);
        private final boolean haveLengths;
        private final int limit;

        Values(boolean haveLengths, int limit) {
            this.haveLengths = haveLengths;
            this.limit = limit;
        }

        @Override
        public boolean add(Object value) {
            if (!found.add(bytesOf(value))) {
                return false;
            }
            if (found.size() > limit) {
                found.pollLast();
            }
            return true;
        }

        @Override
        public byte[] encoded() {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            for (byte[] one : found) {
                if (haveLengths) {
                    out.writeBytes(ByteBuffer.allocate(Integer.BYTES).putInt(one.length).array());
                }
                out.writeBytes(one);
            }
            return out.toByteArray();
        }
    }
}
