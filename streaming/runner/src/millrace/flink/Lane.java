package millrace.flink;

import java.util.ArrayDeque;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;
import org.apache.flink.table.data.RowData;

/**
 * One partition on its way through {@link ArrivalOrder}: what is held of it, and how far it is.
 *
 * <p>Times are of the clock of that operator, which stands still while nothing can be known.
 */
final class Lane {
    /** A record that waits; {@code number} counts the records of all lanes as they come in. */
    record Held(RowData row, long ingestMs, long number, long sinceMs) {}

    /** Offsets that bring nothing for so long are looked at: perhaps there is no record at them. */
    private static final long QUIET_MS = 100;

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

    /** Whether the offsets from {@code probedFrom} to {@code probedEnd} are empty; null: not asked. */
    private CompletableFuture<Boolean> probe;

    private long probedFrom;
    private long probedEnd;

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
    void sawEnd(long end, long number, long nowMs, String topic, EndProbe prober) {
        if (end != endOffset) {
            endOffset = end;
            quietSinceMs = nowMs;
        }
        takeProbe();
        long quietMs = nowMs - quietSinceMs;
        if (end <= nextOffset || quietMs >= STALLED_MS) {
            clearedNumber = number;
        } else if (quietMs >= QUIET_MS && probe == null) {
            probedFrom = nextOffset;
            probedEnd = end;
            probe = prober.isEmpty(new TopicPartition(topic, partition), probedFrom, probedEnd);
        }
    }

    private void takeProbe() {
        if (probe == null || !probe.isDone()) {
            return;
        }
        boolean isEmpty = !probe.isCompletedExceptionally() && probe.join();
        probe = null;
        if (isEmpty && nextOffset >= probedFrom) {
            nextOffset = Math.max(nextOffset, probedEnd);
        }
    }

    /** Whether this lane, nothing of which is held, has nothing left that is older. */
    boolean isPast(Held other) {
        return lastIngestMs >= other.ingestMs || clearedNumber >= other.number;
    }
}
