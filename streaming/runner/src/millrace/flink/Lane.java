package millrace.flink;

import java.util.ArrayDeque;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;

/**
 * One partition that a reader has: how far it is, and what of it is ahead of the others.
 *
 * <p>Times are of the clock of {@link Lanes}, which stands still while nothing can be known.
 */
final class Lane {
    static final long NEVER = Long.MIN_VALUE;

    /** Offsets that bring nothing for so long are looked at: perhaps there is no record at them. */
    private static final long QUIET_MS = 100;

    /** A partition that has more and brings nothing for so long cannot be read. */
    private static final long STALLED_MS = 30_000;

    final TopicPartition partition;

    boolean isPaused;

    /** The offset after the last record that came in; negative: not known yet. */
    private long nextOffset;

    /** Later records are no older than this. */
    private long newestMs = NEVER;

    /** Later records are younger than this. */
    private long clearedMs = NEVER;

    /** What Kafka said last: whoever is past this offset brings nothing of {@code endMs} or older. */
    private long endOffset = Long.MAX_VALUE;

    private long endMs = NEVER;
    private long quietSinceMs;

    /** Whether the offsets from {@code probedFrom} to {@code probedEnd} are empty; null: not asked. */
    private CompletableFuture<Boolean> probe;

    private long probedFrom;
    private long probedEnd;

    /** Bytes of the records of an instant, from the oldest that others may have yet to pass. */
    private final ArrayDeque<long[]> ahead = new ArrayDeque<>();

    Lane(TopicPartition partition, long nextOffset, long nowMs) {
        this.partition = partition;
        this.nextOffset = nextOffset;
        this.quietSinceMs = nowMs;
    }

    boolean isStarted() {
        return nextOffset >= 0;
    }

    void startAt(long offset) {
        nextOffset = Math.max(nextOffset, offset);
    }

    void add(long ingestMs, long offset, long bytes, long nowMs) {
        nextOffset = offset + 1;
        newestMs = Math.max(newestMs, ingestMs);
        quietSinceMs = nowMs;
        long[] last = ahead.peekLast();
        if (last != null && last[0] == newestMs) {
            last[1] += bytes;
        } else {
            ahead.add(new long[] {newestMs, bytes});
        }
    }

    /** Forgets what is ahead no more; returns how many bytes that is. */
    long drop(long reachedMs) {
        long bytes = 0;
        while (!ahead.isEmpty() && ahead.peek()[0] <= reachedMs) {
            bytes += ahead.poll()[1];
        }
        return bytes;
    }

    /**
     * Takes the partition's end as Kafka gave it, when a record of the instant {@code knownMs} had
     * been known for some milliseconds: whatever is not before the end is younger.
     */
    void sawEnd(long end, long knownMs, long nowMs, EndProbe prober) {
        if (end != endOffset || isPaused) {
            quietSinceMs = nowMs;
        }
        endOffset = end;
        endMs = knownMs;
        takeProbe();
        long quietMs = nowMs - quietSinceMs;
        if (quietMs >= STALLED_MS) {
            clearedMs = Math.max(clearedMs, knownMs);
        } else if (nextOffset < end && isStarted() && quietMs >= QUIET_MS && probe == null) {
            probedFrom = nextOffset;
            probedEnd = end;
            probe = prober.isEmpty(partition, probedFrom, probedEnd);
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

    /** Returns the instant that is over here: all later records are younger. */
    long mark() {
        if (nextOffset >= endOffset) {
            clearedMs = Math.max(clearedMs, endMs);
        }
        return newestMs == NEVER ? clearedMs : Math.max(clearedMs, newestMs - 1);
    }
}
