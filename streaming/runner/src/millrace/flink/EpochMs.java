package millrace.flink;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.ScalarFunction;

/** {@code epoch_ms(instant or day)}: epoch milliseconds; of a day, of its midnight in UTC. */
public final class EpochMs extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    private static final long DAY_MS = 86_400_000L;

    public Long eval(
            @DataTypeHint(value = "TIMESTAMP_LTZ(3)", bridgedTo = TimestampData.class)
                    TimestampData instant) {
        return instant == null ? null : instant.getMillisecond();
    }

    public Long eval(@DataTypeHint(value = "DATE", bridgedTo = Integer.class) Integer day) {
        return day == null ? null : day * DAY_MS;
    }
}
