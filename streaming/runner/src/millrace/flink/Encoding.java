package millrace.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.AggregateFunction;
import org.apache.flink.table.types.inference.ArgumentTypeStrategy;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.InputTypeStrategy;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code encoding([event_ms, ingest_ms[, event_id],] value[, parameter])}: the bytes that an {@code
 * Encoding} of {@code millrace.aggregates} keeps of the values that are not null; null of none.
 *
 * <p>The same values give the same bytes there and here, in whatever order they come.
 */
public abstract class Encoding extends AggregateFunction<byte[], Encoding.State> {
    private static final long serialVersionUID = 1L;
    private static final int DECIMAL_BYTES = 16;
    private static final LogicalTypeRoot[] IDS = {
        LogicalTypeRoot.INTEGER,
        LogicalTypeRoot.BIGINT,
        LogicalTypeRoot.CHAR,
        LogicalTypeRoot.VARCHAR,
    };

    /** What is kept of some values, in a form that grows. */
    protected interface Kept {
        /** Takes one more value, {@code Placed} where it is ordered; false if that changes nothing. */
        boolean add(Object value);

        /** Returns the bytes, which nobody changes any more. */
        byte[] encoded();
    }

    /** Bytes, or what they stand for: Flink sees the bytes, which are made when it asks for them. */
    public static final class State {
        private byte[] bytes;
        private Kept kept;

        public byte[] getBytes() {
            if (bytes == null && kept != null) {
                bytes = kept.encoded();
            }
            return bytes;
        }

        public void setBytes(byte[] bytes) {
            this.bytes = bytes;
            this.kept = null;
        }
    }

    private final LogicalTypeRoot[] types;
    private final boolean isOrdered;
    private final boolean hasParameter;

    /** Takes the types of values, whether their places come before and an integer follows. */
    protected Encoding(boolean isOrdered, boolean hasParameter, LogicalTypeRoot... types) {
        this.isOrdered = isOrdered;
        this.hasParameter = hasParameter;
        this.types = types;
    }

    /**
     * Returns what some bytes stand for.
     *
     * @param bytes null for nothing yet
     * @param value one of the values that will be added, which shows their type
     * @param parameter 0 where there is none
     */
    protected abstract Kept decoded(byte[] bytes, Object value, int parameter);

    @Override
    public final State createAccumulator() {
        return new State();
    }

    public final void accumulate(State state, Object value) {
        accumulate(state, value, 0);
    }

    public final void accumulate(State state, Object value, Integer parameter) {
        if (counts(value)) {
            add(state, value, value, parameter);
        }
    }

    public final void accumulate(
            State state, Long eventMs, Long ingestMs, Object value, Integer parameter) {
        accumulate(state, eventMs, ingestMs, null, value, parameter);
    }

    public final void accumulate(
            State state,
            Long eventMs,
            Long ingestMs,
            Object eventId,
            Object value,
            Integer parameter) {
        if (counts(value)) {
            add(state, Placed.of(eventMs, ingestMs, eventId, value), value, parameter);
        }
    }

    private static boolean counts(Object value) {
        return value != null && !(value instanceof Double number && !Double.isFinite(number));
    }

    private void add(State state, Object added, Object value, int parameter) {
        if (state.kept == null) {
            state.kept = decoded(state.bytes, value, parameter);
        }
        if (state.kept.add(added)) {
            state.bytes = null;
        }
    }

    @Override
    public final byte[] getValue(State state) {
        return state.getBytes();
    }

    /** Returns the bytes of a value, as {@code value_writer} of the Python algebra does. */
    protected static byte[] bytesOf(Object value) {
        if (value instanceof StringData text) {
            return text.toBytes();
        }
        if (value instanceof byte[] bytes) {
            return bytes;
        }
        if (value instanceof Boolean flag) {
            return new byte[] {(byte) (flag ? 1 : 0)};
        }
        if (value instanceof Integer number) {
            return ByteBuffer.allocate(Integer.BYTES).putInt(number).array();
        }
        if (value instanceof Double number) {
            double oneZero = number + 0.0;
            return ByteBuffer.allocate(Double.BYTES).putDouble(oneZero).array();
        }
        if (value instanceof DecimalData decimal) {
            byte[] unscaled = decimal.toUnscaledBytes();
            byte[] bytes = new byte[DECIMAL_BYTES];
            int padding = DECIMAL_BYTES - unscaled.length;
            Arrays.fill(bytes, 0, padding, (byte) (unscaled[0] < 0 ? -1 : 0));
            System.arraycopy(unscaled, 0, bytes, padding, unscaled.length);
            return bytes;
        }
        return ByteBuffer.allocate(Long.BYTES).putLong((Long) value).array();
    }

    /** Tells whether the bytes of values like this one differ in length. */
    protected static boolean varies(Object value) {
        return value instanceof StringData || value instanceof byte[];
    }

    /** Writes the bytes of a value, with their length before them where that varies. */
    static void writeValue(ByteArrayOutputStream out, Object value) {
        byte[] bytes = bytesOf(value);
        if (varies(value)) {
            out.writeBytes(ByteBuffer.allocate(Integer.BYTES).putInt(bytes.length).array());
        }
        out.writeBytes(bytes);
    }

    /** Reads what {@code writeValue} wrote; {@code like} is a value of the same type. */
    static Object readValue(ByteBuffer data, Object like) {
        if (like instanceof Boolean) {
            return data.get() != 0;
        }
        if (like instanceof Integer) {
            return data.getInt();
        }
        if (like instanceof Double) {
            return data.getDouble();
        }
        if (like instanceof Long) {
            return data.getLong();
        }
        byte[] bytes = new byte[varies(like) ? data.getInt() : DECIMAL_BYTES];
        data.get(bytes);
        if (like instanceof DecimalData decimal) {
            return DecimalData.fromUnscaledBytes(bytes, decimal.precision(), decimal.scale());
        }
        return like instanceof StringData ? StringData.fromBytes(bytes) : bytes;
    }

    @Override
    public final TypeInference getTypeInference(DataTypeFactory factory) {
        ArgumentTypeStrategy ms = InternalArgument.of("an instant", LogicalTypeRoot.BIGINT);
        ArgumentTypeStrategy id = InternalArgument.of("an event id", IDS);
        InputTypeStrategy input =
                isOrdered
                        ? InputTypeStrategies.or(arguments(ms, ms), arguments(ms, ms, id))
                        : arguments();
        return TypeInference.newBuilder()
                .inputTypeStrategy(input)
                .accumulatorTypeStrategy(
                        call ->
                                Optional.of(
                                        DataTypes.STRUCTURED(
                                                State.class,
                                                DataTypes.FIELD("bytes", DataTypes.BYTES()))))
                .outputTypeStrategy(call -> Optional.of(DataTypes.BYTES()))
                .build();
    }

    /** Returns what is taken where these arguments precede the value. */
    private InputTypeStrategy arguments(ArgumentTypeStrategy... before) {
        List<ArgumentTypeStrategy> all = new ArrayList<>(Arrays.asList(before));
        all.add(InternalArgument.of("a value", types));
        if (hasParameter) {
            all.add(InternalArgument.of("a parameter", LogicalTypeRoot.INTEGER));
        }
        return InputTypeStrategies.sequence(all.toArray(new ArgumentTypeStrategy[0]));
    }
}
