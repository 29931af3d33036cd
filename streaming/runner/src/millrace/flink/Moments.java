package millrace.flink;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.AggregateFunction;

/**
 * {@code moments(DOUBLE)}: {@code ROW<mean DOUBLE, m2 DOUBLE>} over the values that are not null,
 * {@code m2} being the sum of the squared deviations from the mean; null over none, and where one of
 * the two is not finite.
 *
 * <p>By Welford's method: sums of squares lose the variance of large numbers.
 */
@FunctionHint(
        output = @DataTypeHint(value = "ROW<mean DOUBLE, m2 DOUBLE>", bridgedTo = RowData.class))
public final class Moments extends AggregateFunction<RowData, Moments.State> {
    private static final long serialVersionUID = 1L;

    /** The moments so far. */
    public static final class State {
        public long count;
        public double mean;
        public double m2;
    }

    @Override
    public State createAccumulator() {
        return new State();
    }

    public void accumulate(State state, Double value) {
        if (value == null) {
            return;
        }
        state.count++;
        double delta = value - state.mean;
        state.mean += delta / state.count;
        state.m2 += delta * (value - state.mean);
    }

    @Override
    public RowData getValue(State state) {
        boolean isFinite = Double.isFinite(state.mean) && Double.isFinite(state.m2);
        return state.count > 0 && isFinite ? GenericRowData.of(state.mean, state.m2) : null;
    }
}
