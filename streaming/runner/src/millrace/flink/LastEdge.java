package millrace.flink;

/** {@code last_edge(event_ms, ingest_ms[, event_id], value)}: see {@link Edge}. */
public final class LastEdge extends Edge {
    private static final long serialVersionUID = 1L;

    public LastEdge() {
        super(1);
    }
}
