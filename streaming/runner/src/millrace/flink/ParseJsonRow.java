package millrace.flink;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.SpecializedFunction;
import org.apache.flink.table.functions.TableFunction;
import org.apache.flink.table.functions.UserDefinedFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.ArgumentTypeStrategy;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.utils.DataTypeUtils;

/**
 * {@code parse_json_row(bytes, columns[, wanted])}: the event that the bytes hold, and why it is
 * refused.
 *
 * <p>{@code columns} is a literal, the columns and their types as in {@code ROW<…>}; a column that
 * is NOT NULL must have a value, and times the events. A comment of a column is what records call it,
 * a name or else a dotted path. {@code wanted}, a literal too, names the columns that come out,
 * parted by commas, all by default; the others are judged as well. Instants come out as BIGINT,
 * epoch milliseconds. {@code BINARY(4 * n)} is a vector of n floats, and comes out as ARRAY. Then comes {@code reason}: {@code malformed} or {@code schema}, and no values
 * beside it; or null. Every call gives exactly one row.
 */
public final class ParseJsonRow extends TableFunction<RowData> implements SpecializedFunction {
    private static final long serialVersionUID = 1L;
    private static final String REASON = "reason";
    private static final StringData MALFORMED = StringData.fromString(JsonRowReader.MALFORMED);
    private static final StringData SCHEMA = StringData.fromString(JsonRowReader.SCHEMA);

    private final RowType columns;
    private final int[] wanted;
    private transient JsonRowReader reader;

    /** For the planner, which asks for {@link #specialize} before it runs anything. */
    public ParseJsonRow() {
        this(null, null);
    }

    private ParseJsonRow(RowType columns, int[] wanted) {
        this.columns = columns;
        this.wanted = wanted;
    }

    @Override
    public UserDefinedFunction specialize(SpecializedContext context) {
        CallContext call = context.getCallContext();
        RowType type = columnsOf(call);
        return new ParseJsonRow(type, wantedOf(call, type));
    }

    @Override
    public void open(FunctionContext context) {
        reader = new JsonRowReader(columns);
    }

    public void eval(byte[] event, StringData... literals) {
        GenericRowData row = new GenericRowData(wanted.length + 1);
        String reason = reader.read(event);
        if (reason != null) {
            row.setField(wanted.length, reason.equals(JsonRowReader.SCHEMA) ? SCHEMA : MALFORMED);
            collect(row);
            return;
        }
        for (int i = 0; i < wanted.length; i++) {
            row.setField(i, reader.value(wanted[i]));
        }
        collect(row);
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        ArgumentTypeStrategy event =
                InternalArgument.of("event", LogicalTypeRoot.VARBINARY, LogicalTypeRoot.BINARY);
        ArgumentTypeStrategy text =
                InternalArgument.of("literal", LogicalTypeRoot.CHAR, LogicalTypeRoot.VARCHAR);
        return TypeInference.newBuilder()
                .inputTypeStrategy(
                        InputTypeStrategies.or(
                                InputTypeStrategies.sequence(event, text),
                                InputTypeStrategies.sequence(event, text, text)))
                .outputTypeStrategy(call -> Optional.of(outputOf(call)))
                .build();
    }

    private static DataType outputOf(CallContext call) {
        RowType columns = columnsOf(call);
        List<DataTypes.Field> fields = new ArrayList<>();
        for (int place : wantedOf(call, columns)) {
            RowType.RowField column = columns.getFields().get(place);
            fields.add(DataTypes.FIELD(column.getName(), outputOf(column.getType())));
        }
        fields.add(DataTypes.FIELD(REASON, DataTypes.STRING()));
        return DataTypeUtils.toInternalDataType(DataTypes.ROW(fields));
    }

    private static DataType outputOf(LogicalType column) {
        if (column.is(LogicalTypeRoot.BINARY)) {
            return DataTypes.ARRAY(DataTypes.FLOAT());
        }
        boolean isInstant = column.is(LogicalTypeRoot.TIMESTAMP_WITH_LOCAL_TIME_ZONE);
        return isInstant ? DataTypes.BIGINT() : DataTypes.of(column.copy(true));
    }

    private static RowType columnsOf(CallContext call) {
        DataType row = call.getDataTypeFactory().createDataType("ROW<" + literal(call, 1) + ">");
        return (RowType) row.getLogicalType();
    }

    private static int[] wantedOf(CallContext call, RowType columns) {
        if (call.getArgumentDataTypes().size() < 3) {
            return IntStream.range(0, columns.getFieldCount()).toArray();
        }
        return Arrays.stream(literal(call, 2).split(","))
                .mapToInt(name -> columns.getFieldNames().indexOf(name.strip()))
                .toArray();
    }

    private static String literal(CallContext call, int position) {
        return call.getArgumentValue(position, String.class)
                .orElseThrow(
                        () ->
                                new ValidationException(
                                        "parse_json_row takes its columns from literals only"));
    }
}
