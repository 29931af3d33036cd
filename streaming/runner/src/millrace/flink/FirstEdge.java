package millrace.flink;

/** {@code first_edge(event_ms, ingest_ms[, event_id], value)}: see {@link Edge}. */
public final class FirstEdge extends Edge {
    private static final long serialVersionUID = 1L;

    public FirstEdge() {
        super(-1);
    }
}
