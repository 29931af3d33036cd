package millrace.flink;

import org.apache.flink.table.functions.AggregateFunction;

/**
 * {@code previous_arrival(ingest_ms)}: the argument of the row before the last; null for one row.
 *
 * <p>For {@code OVER} windows that end at the current row.
 */
public final class PreviousArrival extends AggregateFunction<Long, PreviousArrival.State> {
    private static final long serialVersionUID = 1L;

    /** The arguments of the last two rows. */
    public static final class State {
        public Long last;
        public Long previous;
    }

    @Override
    public State createAccumulator() {
        return new State();
    }

    public void accumulate(State state, Long ingestMs) {
        state.previous = state.last;
        state.last = ingestMs;
    }

    @Override
    public Long getValue(State state) {
        return state.previous;
    }
}
