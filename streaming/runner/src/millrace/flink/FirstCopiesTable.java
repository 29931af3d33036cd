package millrace.flink;

import java.io.Serializable;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.api.config.ExecutionConfigOptions;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.utils.DataTypeUtils;
import org.apache.flink.util.TimeUtils;

/**
 * {@code 'connector' = 'first-copies'}: the rows of another table that are no copies, see {@link
 * FirstCopies}. It has that table's columns.
 *
 * <p>Its options are that {@code table}, its columns {@code id}, {@code ingest-ms}, {@code partition}
 * and {@code offset} by name, and for how long a copy does not count ({@code horizon}) and ids are
 * kept ({@code kept}).
 */
final class FirstCopiesTable {
    static final String CONNECTOR = "first-copies";

    private static final ConfigOption<Boolean> BATCHES =
            ExecutionConfigOptions.TABLE_EXEC_MINIBATCH_ENABLED;

    /** Where a row has what the order and the copies are told by. */
    record Columns(int id, int ingestMs, int partition, int offset) implements Serializable {}

    private FirstCopiesTable() {}

    /** Returns the rows that are no copies. */
    static Table of(StreamTableEnvironment tables, Map<String, String> options) {
        Table all = tables.from(options.get("table"));
        DataType rows =
                DataTypeUtils.toInternalDataType(all.getResolvedSchema().toPhysicalRowDataType());
        RowType type = (RowType) rows.getLogicalType();
        List<String> names = type.getFieldNames();
        Columns columns =
                new Columns(
                        names.indexOf(options.get("id")),
                        names.indexOf(options.get("ingest-ms")),
                        names.indexOf(options.get("partition")),
                        names.indexOf(options.get("offset")));
        LogicalType idType = type.getTypeAt(columns.id());
        Keys keys = new Keys(columns, idType);
        InternalTypeInfo<RowData> produced = InternalTypeInfo.of(type);
        // Batches are told apart by marks of their own, which would take the place of the readers'.
        boolean hasBatches = tables.getConfig().get(BATCHES);
        tables.getConfig().set(BATCHES, false);
        DataStream<RowData> input = tables.toDataStream(all, rows);
        tables.getConfig().set(BATCHES, hasBatches);
        DataStream<RowData> first =
                input.keyBy(keys, InternalTypeInfo.of(idType))
                        .transform(
                                "first copies",
                                produced,
                                new FirstCopies(
                                        columns,
                                        keys,
                                        produced,
                                        TimeUtils.parseDuration(options.get("horizon")).toMillis(),
                                        TimeUtils.parseDuration(options.get("kept"))));
        return tables.fromDataStream(first);
    }

    /** The id; for a row without one anything of its type, so that these go to all tasks. */
    static final class Keys implements KeySelector<RowData, Object> {
        private static final long serialVersionUID = 1L;

        private final int offset;
        private final RowData.FieldGetter id;
        private final LogicalType type;

        Keys(Columns columns, LogicalType type) {
            this.offset = columns.offset();
            this.id = RowData.createFieldGetter(type, columns.id());
            this.type = type;
        }

        @Override
        public Object getKey(RowData row) {
            Object found = id.getFieldOrNull(row);
            return found == null ? instead(row.getLong(offset)) : found;
        }

        private Object instead(long number) {
            return switch (type.getTypeRoot()) {
                case INTEGER -> (Object) (int) number;
                case BIGINT -> number;
                default -> StringData.fromString(Long.toString(number));
            };
        }
    }
}
