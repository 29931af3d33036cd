package millrace.flink;

import java.util.ArrayDeque;
import org.apache.flink.table.data.RowData;

/** One partition on its way through {@link ArrivalOrder}: what is held of it, and how far it is. */
final class Lane {
    /** A record that waits; {@code number} counts the records of all lanes as they come in. */
    record Held(RowData row, long ingestMs, long number, long sinceMs) {}

    /** The last offset may be the mark of a transaction, which no reader is given. */
    private static final long MARKER_MS = 1_000;

    /** A partition that has more and brings nothing for so long cannot be read. */
    private static final long STALLED_MS = 30_000;

    final int partition;
    final ArrayDeque<Held> held = new ArrayDeque<>();

    /** The offset after the last record that came in. */
    long nextOffset;

    /** Later records are no older than this. */
    private long lastIngestMs = Long.MIN_VALUE;

    /** Records of any lane up to this number are older than all that this one has yet to bring. */
    private long clearedNumber = -1;

    private long endOffset = -1;
    private long quietSinceMs;

    Lane(int partition, long nextOffset, long nowMs) {
        this.partition = partition;
        this.nextOffset = nextOffset;
        this.quietSinceMs = nowMs;
    }

    void add(RowData row, long ingestMs, long offset, long number, long nowMs) {
        held.add(new Held(row, ingestMs, number, nowMs));
        nextOffset = offset + 1;
        lastIngestMs = Math.max(lastIngestMs, ingestMs);
        quietSinceMs = nowMs;
    }

    /**
     * Takes the partition's end as Kafka gave it to a question that was asked when {@code number}
     * records had come in. If nothing is left before the end, whatever follows was appended after
     * the question.
     */
    void sawEnd(long end, long number, long nowMs) {
        if (end != endOffset) {
            endOffset = end;
            quietSinceMs = nowMs;
        }
        long left = end - nextOffset;
        if (left <= 0 || nowMs - quietSinceMs >= (left == 1 ? MARKER_MS : STALLED_MS)) {
            clearedNumber = number;
        }
    }

    /** Whether this lane, nothing of which is held, has nothing left that is older. */
    boolean isPast(Held other) {
        return lastIngestMs >= other.ingestMs || clearedNumber >= other.number;
    }
}
