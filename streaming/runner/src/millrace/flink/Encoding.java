package millrace.flink;

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
 * {@code encoding(value[, parameter])}: the bytes that an {@code Encoding} of {@code
 * millrace.aggregates} keeps of the values that are not null; null of none.
 *
 * <p>The same values give the same bytes there and here, in whatever order they come.
 */
public abstract class Encoding extends AggregateFunction<byte[], Encoding.State> {
    private static final long serialVersionUID = 1L;
    private static final int DECIMAL_BYTES = 16;

    /** What is kept of some values, in a form that grows. */
    protected interface Kept {
        /** Takes one more value; false if that changes nothing. */
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
    private final boolean hasParameter;

    /** Takes the types of values, and whether an integer follows the value. */
    protected Encoding(boolean hasParameter, LogicalTypeRoot... types) {
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
        if (value == null || (value instanceof Double number && !Double.isFinite(number))) {
            return;
        }
        if (state.kept == null) {
            state.kept = decoded(state.bytes, value, parameter);
        }
        if (state.kept.add(value)) {
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

    @Override
    public final TypeInference getTypeInference(DataTypeFactory factory) {
        List<ArgumentTypeStrategy> arguments = new ArrayList<>();
        arguments.add(InternalArgument.of("a value", types));
        if (hasParameter) {
            arguments.add(InternalArgument.of("a parameter", LogicalTypeRoot.INTEGER));
        }
        InputTypeStrategy input =
                InputTypeStrategies.sequence(arguments.toArray(new ArgumentTypeStrategy[0]));
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
}
