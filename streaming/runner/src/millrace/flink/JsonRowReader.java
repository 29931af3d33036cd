package millrace.flink;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser.NumberType;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.StreamReadConstraints;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.BinaryType;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.RowType.RowField;

/**
 * Reads events from JSON as strictly as the types of their columns.
 *
 * <p>{@link #read} gives a verdict and never throws; after the verdict {@code null} the values are
 * in {@link #value}, in Flink's internal form. One reader is one thread's.
 */
final class JsonRowReader {
    static final String MALFORMED = "malformed";
    static final String SCHEMA = "schema";

    private static final int MOST_LEVELS = 1000;

    /** Stands for a value that does not fit its column. */
    private static final Object UNFIT = new Object();

    /** A column, resolved once; of a vector, {@code precision} is how many floats it has. */
    private record Column(LogicalTypeRoot root, int precision, int scale, boolean isRequired) {
        static Column of(LogicalType type) {
            boolean isDecimal = type.getTypeRoot() == LogicalTypeRoot.DECIMAL;
            int precision = isDecimal ? ((DecimalType) type).getPrecision() : 0;
            int scale = isDecimal ? ((DecimalType) type).getScale() : 0;
            if (type instanceof BinaryType floats) {
                precision = floats.getLength() / Float.BYTES;
            }
            return new Column(type.getTypeRoot(), precision, scale, !type.isNullable());
        }

        boolean isVector() {
            return root == LogicalTypeRoot.BINARY;
        }
    }

    /** A field of a record: the columns it is the value of, and what is reached within it. */
    private static final class Field {
        final List<Integer> named = new ArrayList<>();
        final List<Integer> reached = new ArrayList<>();
        final Map<String, Field> within = new HashMap<>();

        Field at(String name) {
            return within.computeIfAbsent(name, any -> new Field());
        }
    }

    private final JsonFactory factory =
            JsonFactory.builder()
                    .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
                    .disable(JsonFactory.Feature.FAIL_ON_SYMBOL_HASH_OVERFLOW)
                    .streamReadConstraints(
                            StreamReadConstraints.builder()
                                    .maxNestingDepth(MOST_LEVELS)
                                    .maxNumberLength(Integer.MAX_VALUE)
                                    .maxStringLength(Integer.MAX_VALUE)
                                    .maxNameLength(Integer.MAX_VALUE)
                                    .build())
                    .build();
    private final Field root = new Field();
    private final Column[] columns;
    private final Object[] values;

    /** Whether a value came under the column's whole name, which wins over a path. */
    private final boolean[] isNamed;

    JsonRowReader(RowType type) {
        List<RowField> fields = type.getFields();
        columns = new Column[fields.size()];
        values = new Object[fields.size()];
        for (int i = 0; i < columns.length; i++) {
            columns[i] = Column.of(fields.get(i).getType());
            // What records call a column is its field's comment, where it differs.
            String origin = fields.get(i).getDescription().orElse(fields.get(i).getName());
            root.at(origin).named.add(i);
            if (origin.indexOf('.') >= 0) {
                Field field = root;
                for (String part : origin.split("\\.", -1)) {
                    field = field.at(part);
                }
                field.reached.add(i);
            }
        }
        isNamed = new boolean[columns.length];
    }

    /** The value of a column, as the last event had it. */
    Object value(int place) {
        return values[place];
    }

    /** Why the event is refused; null if it is not. */
    String read(byte[] event) {
        if (event == null || !JsonText.isSound(event)) {
            return MALFORMED;
        }
        Arrays.fill(values, null);
        Arrays.fill(isNamed, false);
        try (JsonParser parser = factory.createParser(event)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return MALFORMED;
            }
            readObject(parser, root);
            if (parser.nextToken() != null) {
                return MALFORMED;
            }
        } catch (IOException | RuntimeException e) {
            // Also what the parser did not foresee: no event may stop a job.
            return MALFORMED;
        }
        return hasFaults() ? SCHEMA : null;
    }

    /** Reads the object that has begun, to its end. */
    private void readObject(JsonParser parser, Field field) throws IOException {
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            Field found = field.within.get(parser.currentName());
            JsonToken token = parser.nextToken();
            if (found == null) {
                parser.skipChildren();
                continue;
            }
            double[] numbers =
                    token == JsonToken.START_ARRAY && hasVector(found) ? numbers(parser) : null;
            if (!found.within.isEmpty()) {
                // Of a repeated name only the last value counts, with all that is within it.
                forget(found);
            }
            for (int place : found.named) {
                values[place] = valueOf(parser, token, numbers, columns[place]);
                isNamed[place] = true;
            }
            for (int place : found.reached) {
                if (!isNamed[place]) {
                    values[place] = valueOf(parser, token, numbers, columns[place]);
                }
            }
            if (token == JsonToken.START_OBJECT && !found.within.isEmpty()) {
                readObject(parser, found);
            } else {
                parser.skipChildren();
            }
        }
    }

    private void forget(Field field) {
        for (Field within : field.within.values()) {
            for (int place : within.reached) {
                if (!isNamed[place]) {
                    values[place] = null;
                }
            }
            forget(within);
        }
    }

    private boolean hasFaults() {
        for (int i = 0; i < values.length; i++) {
            if (values[i] == UNFIT || values[i] == null && columns[i].isRequired) {
                return true;
            }
        }
        return false;
    }

    private boolean hasVector(Field field) {
        return Stream.concat(field.named.stream(), field.reached.stream())
                .anyMatch(place -> columns[place].isVector());
    }

    /** Reads the array that has begun, to its end; null if not all it holds are numbers. */
    private static double[] numbers(JsonParser parser) throws IOException {
        double[] numbers = new double[16];
        int count = 0;
        boolean isAll = true;
        while (parser.nextToken() != JsonToken.END_ARRAY) {
            if (!parser.currentToken().isNumeric()) {
                isAll = false;
                parser.skipChildren();
                continue;
            }
            if (count == numbers.length) {
                numbers = Arrays.copyOf(numbers, 2 * count);
            }
            numbers[count++] = Double.parseDouble(parser.getText());
        }
        return isAll ? Arrays.copyOf(numbers, count) : null;
    }

    /** Each number as the nearest float; null if they are not so many, or one is not finite then. */
    private static GenericArrayData vector(double[] numbers, int length) {
        if (numbers == null || numbers.length != length) {
            return null;
        }
        float[] floats = new float[length];
        for (int i = 0; i < length; i++) {
            floats[i] = (float) numbers[i];
            if (!Float.isFinite(floats[i])) {
                return null;
            }
        }
        return new GenericArrayData(floats);
    }

    /** Returns a column's value; {@code numbers} are those of an array, which is read already. */
    private static Object valueOf(
            JsonParser parser, JsonToken token, double[] numbers, Column column)
            throws IOException {
        if (token == JsonToken.VALUE_NULL) {
            return null;
        }
        Object value =
                switch (column.root) {
                    case INTEGER -> integer(parser, token, column.root);
                    case BIGINT -> whole(parser, token, column);
                    case DOUBLE -> finite(parser, token);
                    case BOOLEAN -> token.isBoolean() ? token == JsonToken.VALUE_TRUE : null;
                    case DECIMAL -> decimal(parser, token, column);
                    case BINARY -> vector(numbers, column.precision);
                    case TIMESTAMP_WITH_LOCAL_TIME_ZONE -> instant(parser, token);
                    default -> token == JsonToken.VALUE_STRING ? text(parser, column.root) : null;
                };
        return value == null ? UNFIT : value;
    }

    /** A column that must have a value times the events: its integers are instants. */
    private static Object whole(JsonParser parser, JsonToken token, Column column)
            throws IOException {
        Object value = integer(parser, token, column.root);
        return column.isRequired ? Instants.inCalendar((Long) value) : value;
    }

    private static Object integer(JsonParser parser, JsonToken token, LogicalTypeRoot root)
            throws IOException {
        if (token != JsonToken.VALUE_NUMBER_INT
                || parser.getNumberType() == NumberType.BIG_INTEGER) {
            return null;
        }
        long value = parser.getLongValue();
        if (root == LogicalTypeRoot.BIGINT) {
            return value;
        }
        return value == (int) value ? (int) value : null;
    }

    private static Double finite(JsonParser parser, JsonToken token) throws IOException {
        if (!token.isNumeric()) {
            return null;
        }
        // By its text: behind an integer too long for 64 bits the parser gives that one's value.
        double value = Double.parseDouble(parser.getText());
        return Double.isFinite(value) ? value : null;
    }

    private static Object decimal(JsonParser parser, JsonToken token, Column column)
            throws IOException {
        if (!token.isNumeric() && token != JsonToken.VALUE_STRING) {
            return null;
        }
        return Decimals.read(
                parser.getTextCharacters(),
                parser.getTextOffset(),
                parser.getTextLength(),
                column.precision,
                column.scale);
    }

    private static Long instant(JsonParser parser, JsonToken token) throws IOException {
        if (token != JsonToken.VALUE_STRING) {
            return Instants.inCalendar((Long) integer(parser, token, LogicalTypeRoot.BIGINT));
        }
        Long ms =
                Instants.epochMs(
                        parser.getTextCharacters(), parser.getTextOffset(), parser.getTextLength());
        return Instants.inCalendar(ms);
    }

    private static Object text(JsonParser parser, LogicalTypeRoot root) throws IOException {
        return switch (root) {
            case DATE ->
                    Instants.epochDay(
                            parser.getTextCharacters(),
                            parser.getTextOffset(),
                            parser.getTextLength());
            case VARBINARY -> bytes(parser.getText());
            default -> StringData.fromBytes(parser.getText().getBytes(StandardCharsets.UTF_8));
        };
    }

    private static byte[] bytes(String base64) {
        if (base64.length() % 4 != 0) {
            return null;
        }
        try {
            return Base64.getDecoder().decode(base64);
        } catch (IllegalArgumentException e) {
            return null;
        }
    }
}
