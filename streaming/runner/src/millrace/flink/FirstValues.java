package millrace.flink;

/** {@code first_values(event_ms, ingest_ms[, event_id], value, k)}: the oldest values, see {@code EdgeValues}. */
public final class FirstValues extends EdgeValues {
    private static final long serialVersionUID = 1L;

    public FirstValues() {
        super(false);
    }
}
