package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

/**
 * A value that is not null with the place of its event: by event time, ingest time, event id (null
 * before all others) and value.
 */
record Placed(long eventMs, long ingestMs, Object eventId, Object value)
        implements Comparable<Placed> {
    private static final int NO_ID = 0;
    private static final int NUMBER = 1;
    private static final int TEXT = 2;

    /** Returns what stays as it is when the row that it was cut from is gone. */
    static Placed of(long eventMs, long ingestMs, Object eventId, Object value) {
        Object id = eventId instanceof Integer number ? (Object) number.longValue() : kept(eventId);
        return new Placed(eventMs, ingestMs, id, kept(value));
    }

    private static Object kept(Object value) {
        if (value instanceof Double number) {
            return number + 0.0; // both zeros are one
        }
        return value instanceof BinaryStringData text ? text.copy() : value;
    }

    @Override
    public int compareTo(Placed other) {
        int order = Long.compare(eventMs, other.eventMs);
        if (order == 0) {
            order = Long.compare(ingestMs, other.ingestMs);
        }
        if (order == 0) {
            order = Order.compare(eventId, other.eventId);
        }
        return order == 0 ? Order.compare(value, other.value) : order;
    }

    /** Writes the bytes that {@code edge_writer} of {@code millrace.aggregates} does. */
    void write(ByteArrayOutputStream out) {
        ByteBuffer place = ByteBuffer.allocate(2 * Long.BYTES);
        out.writeBytes(place.putLong(eventMs).putLong(ingestMs).array());
        out.write(eventId == null ? NO_ID : eventId instanceof Long ? NUMBER : TEXT);
        if (eventId != null) {
            Encoding.writeValue(out, eventId);
        }
        Encoding.writeValue(out, value);
    }

    /** Reads what {@code write} wrote; {@code like} is a value of the same type. */
    static Placed read(ByteBuffer data, Object like) {
        long eventMs = data.getLong();
        long ingestMs = data.getLong();
        int kind = data.get();
        Object id = kind == NO_ID ? null : Encoding.readValue(data, kind == NUMBER ? 0L : NO_TEXT);
        return new Placed(eventMs, ingestMs, id, Encoding.readValue(data, like));
    }

    private static final StringData NO_TEXT = StringData.fromString("");
}
