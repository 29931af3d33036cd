package millrace.flink;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.ScalarFunction;

/** {@code utc_day(instant)}: the date of an instant in UTC, before 1970 too. */
public final class UtcDay extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    private static final long DAY_MS = 86_400_000L;

    public @DataTypeHint(value = "DATE", bridgedTo = Integer.class) Integer eval(
            @DataTypeHint(value = "TIMESTAMP_LTZ(3)", bridgedTo = TimestampData.class)
                    TimestampData instant) {
        return instant == null ? null : (int) Math.floorDiv(instant.getMillisecond(), DAY_MS);
    }
}
