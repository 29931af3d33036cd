package millrace.flink;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.DataTypes.Field;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryArrayData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.AggregateFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.ArgumentTypeStrategy;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.utils.DataTypeUtils;

/**
 * {@code edge(event_ms, ingest_ms[, event_id], value)}: a row of the arguments, of the event that
 * comes first or last among those whose value is not null; null if there is none.
 *
 * <p>The order is by event time, ingest time, event id (null before all others) and value.
 */
public abstract class Edge extends AggregateFunction<RowData, Edge.State> {
    private static final long serialVersionUID = 1L;
    private static final LogicalTypeRoot[] VALUES = {
        LogicalTypeRoot.BOOLEAN,
        LogicalTypeRoot.INTEGER,
        LogicalTypeRoot.BIGINT,
        LogicalTypeRoot.DOUBLE,
        LogicalTypeRoot.DECIMAL,
        LogicalTypeRoot.CHAR,
        LogicalTypeRoot.VARCHAR,
        LogicalTypeRoot.VARBINARY,
        LogicalTypeRoot.DATE,
        LogicalTypeRoot.ARRAY,
    };

    /** The edge so far. It is replaced and never changed, for it has been given out. */
    public static final class State {
        public RowData edge;
    }

    private final int wantedSign;

    /** Takes the sign that comparing a candidate with the edge has if the candidate wins. */
    Edge(int wantedSign) {
        this.wantedSign = wantedSign;
    }

    @Override
    public final State createAccumulator() {
        return new State();
    }

    public final void accumulate(State state, Long eventMs, Long ingestMs, Object value) {
        if (value != null && wins(state.edge, eventMs, ingestMs, null, value)) {
            state.edge = GenericRowData.of(eventMs, ingestMs, kept(value));
        }
    }

    public final void accumulate(
            State state, Long eventMs, Long ingestMs, Object eventId, Object value) {
        if (value != null && wins(state.edge, eventMs, ingestMs, eventId, value)) {
            state.edge = GenericRowData.of(eventMs, ingestMs, kept(eventId), kept(value));
        }
    }

    @Override
    public final RowData getValue(State state) {
        return state.edge;
    }

    private boolean wins(RowData edge, long eventMs, long ingestMs, Object eventId, Object value) {
        if (edge == null) {
            return true;
        }
        int order = Long.compare(eventMs, edge.getLong(0));
        if (order == 0) {
            order = Long.compare(ingestMs, edge.getLong(1));
        }
        int last = edge.getArity() - 1;
        if (order == 0 && last == 3) {
            order = compare(eventId, edge, 2);
        }
        if (order == 0) {
            order = compare(value, edge, last);
        }
        return Integer.signum(order) == wantedSign;
    }

    /** Compares a value with a field of its type; null comes first. */
    private static int compare(Object value, RowData row, int field) {
        if (value == null || row.isNullAt(field)) {
            return Boolean.compare(value != null, !row.isNullAt(field));
        }
        return Order.compare(value, fieldOf(row, field, value));
    }

    private static Object fieldOf(RowData row, int field, Object like) {
        if (like instanceof StringData) {
            return row.getString(field);
        }
        if (like instanceof byte[]) {
            return row.getBinary(field);
        }
        if (like instanceof Double) {
            return row.getDouble(field);
        }
        if (like instanceof DecimalData decimal) {
            return row.getDecimal(field, decimal.precision(), decimal.scale());
        }
        if (like instanceof Boolean) {
            return row.getBoolean(field);
        }
        if (like instanceof ArrayData) {
            return row.getArray(field);
        }
        return like instanceof Integer ? (Object) row.getInt(field) : row.getLong(field);
    }

    /** Text or a vector without the row that it was cut from, which it would keep alive. */
    private static Object kept(Object value) {
        if (value instanceof BinaryArrayData vector) {
            return vector.copy();
        }
        return value instanceof BinaryStringData text ? text.copy() : value;
    }

    @Override
    public final TypeInference getTypeInference(DataTypeFactory types) {
        ArgumentTypeStrategy ms = InternalArgument.of("an instant", LogicalTypeRoot.BIGINT);
        ArgumentTypeStrategy any = InternalArgument.of("a value", VALUES);
        return TypeInference.newBuilder()
                .inputTypeStrategy(
                        InputTypeStrategies.or(
                                InputTypeStrategies.sequence(ms, ms, any),
                                InputTypeStrategies.sequence(ms, ms, any, any)))
                .accumulatorTypeStrategy(
                        call ->
                                Optional.of(
                                        DataTypes.STRUCTURED(
                                                State.class,
                                                DataTypes.FIELD("edge", edge(call)))))
                .outputTypeStrategy(call -> Optional.of(edge(call)))
                .build();
    }

    private static DataType edge(CallContext call) {
        List<DataType> arguments = call.getArgumentDataTypes();
        boolean isNamed = arguments.size() == 4;
        List<Field> fields = new ArrayList<>();
        fields.add(DataTypes.FIELD("event_ms", DataTypes.BIGINT()));
        fields.add(DataTypes.FIELD("ingest_ms", DataTypes.BIGINT()));
        if (isNamed) {
            fields.add(DataTypes.FIELD("event_id", arguments.get(2).nullable()));
        }
        fields.add(DataTypes.FIELD("value", arguments.get(arguments.size() - 1).nullable()));
        return DataTypeUtils.toInternalDataType(DataTypes.ROW(fields));
    }
}
