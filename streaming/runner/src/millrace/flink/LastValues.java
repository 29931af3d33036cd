package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.Comparator;
import java.util.PriorityQueue;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code last_values(event_ms, ingest_ms[, event_id], value, k)}: the newest values with their
 * places, newest first.
 */
public final class LastValues extends Encoding {
    private static final long serialVersionUID = 1L;

    public LastValues() {
        super(
                true,
                true,
                LogicalTypeRoot.BOOLEAN,
                LogicalTypeRoot.INTEGER,
                LogicalTypeRoot.BIGINT,
                LogicalTypeRoot.DOUBLE,
                LogicalTypeRoot.DECIMAL,
                LogicalTypeRoot.CHAR,
                LogicalTypeRoot.VARCHAR,
                LogicalTypeRoot.VARBINARY,
                LogicalTypeRoot.DATE);
    }

    @Override
    protected Kept decoded(byte[] bytes, Object value, int most) {
        Newest newest = new Newest(most);
        ByteBuffer rest = ByteBuffer.wrap(bytes == null ? new byte[0] : bytes);
        while (rest.hasRemaining()) {
            newest.held.add(Placed.read(rest, value));
        }
        return newest;
    }

    private static final class Newest implements Kept {
        private final PriorityQueue<Placed> held = new PriorityQueue<>(); // the oldest at its head
        private final int most;

        Newest(int most) {
            this.most = most;
        }

        @Override
        public boolean add(Object value) {
            Placed added = (Placed) value;
            if (held.size() < most) {
                return held.add(added);
            }
            if (added.compareTo(held.peek()) <= 0) {
                return false;
            }
            held.poll();
            return held.add(added);
        }

        @Override
        public byte[] encoded() {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            held.stream().sorted(Comparator.reverseOrder()).forEach(one -> one.write(out));
            return out.toByteArray();
        }
    }
}
