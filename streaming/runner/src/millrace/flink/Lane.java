package millrace.flink;

import java.util.ArrayDeque;
import org.apache.flink.table.data.RowData;

/** One partition on its way through {@link ArrivalOrder}: what is held of it, and how far it is. */
final class Lane {
    /** A record that waits; {@code number} counts the records of all lanes as they come in. */
    record Held(RowData row, long ingestMs, long number, long sinceMs) {}

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
    void sawEnd(long end, long number, long nowMs, long patienceMs) {
        if (end != endOffset) {
            endOffset = end;
            quietSinceMs = nowMs;
        }
        // The last offsets may hold what no reader is given, such as a transaction's marker.
        if (nextOffset >= end || nowMs - quietSinceMs >= patienceMs) {
            clearedNumber = number;
        }
    }

    /** Whether this lane, nothing of which is held, has nothing left that is older. */
    boolean isPast(Held other) {
        return lastIngestMs >= other.ingestMs || clearedNumber >= other.number;
    }
}
