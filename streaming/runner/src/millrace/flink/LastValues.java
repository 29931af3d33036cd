package millrace.flink;

/** {@code last_values(event_ms, ingest_ms[, event_id], value, k)}: the newest values, see {@code EdgeValues}. */
public final class LastValues extends EdgeValues {
    private static final long serialVersionUID = 1L;

    public LastValues() {
        super(true);
    }
}
