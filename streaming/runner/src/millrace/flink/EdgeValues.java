package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.Comparator;
import java.util.PriorityQueue;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code edge_values(event_ms, ingest_ms[, event_id], value, k)}: the values at one end of the order
 * of places, with their places, the outermost first.
 */
public abstract class EdgeValues extends Encoding {
    private static final long serialVersionUID = 1L;

    private final boolean isDescending;

    /** Takes whether the newest values are kept, newest first, or the oldest, oldest first. */
    EdgeValues(boolean isDescending) {
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
        this.isDescending = isDescending;
    }

    @Override
    protected final Kept decoded(byte[] bytes, Object value, int most) {
        Comparator<Placed> order =
                isDescending ? Comparator.reverseOrder() : Comparator.naturalOrder();
        Outermost outermost = new Outermost(order, most);
        ByteBuffer rest = ByteBuffer.wrap(bytes == null ? new byte[0] : bytes);
        while (rest.hasRemaining()) {
            outermost.held.add(Placed.read(rest, value));
        }
        return outermost;
    }

    private static final class Outermost implements Kept {
        private final Comparator<Placed> order;
        private final PriorityQueue<Placed> held; // the innermost at its head
        private final int most;

        Outermost(Comparator<Placed> order, int most) {
            this.order = order;
            this.held = new PriorityQueue<>(order.reversed());
            this.most = most;
        }

        @Override
        public boolean add(Object value) {
            Placed added = (Placed) value;
            if (held.size() < most) {
                return held.add(added);
            }
            if (order.compare(added, held.peek()) >= 0) {
                return false;
            }
            held.poll();
            return held.add(added);
        }

        @Override
        public byte[] encoded() {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            held.stream().sorted(order).forEach(one -> one.write(out));
            return out.toByteArray();
        }
    }
}
