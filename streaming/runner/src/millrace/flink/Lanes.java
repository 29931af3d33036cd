package millrace.flink;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;

/**
 * The partitions of one reader, and the instant that is over in all of them: its mark.
 *
 * <p>A record is as old as its timestamp says. A partition that brought a record has nothing older
 * left; one that is at its end, as Kafka said after some instant was known, has nothing of that
 * instant left. A mark never passes the newest record that was known when the topic was last seen to
 * have no partition that nobody reads.
 */
final class Lanes {
    /** What the readers of a topic may be ahead of the slowest of its partitions, all together. */
    static final long MOST_AHEAD_BYTES = 64L << 20;

    private static final int ROW_BYTES = 256;

    /** What the clock goes on by at most from one look to the next: who was held up saw nothing. */
    private static final long LONGEST_TICK_MS = 50;

    private final Map<Integer, Lane> lanes = new HashMap<>();
    private final EndProbe prober;
    private final long mostAheadBytes;

    private long markMs = Lane.NEVER;
    private long knownMs = Lane.NEVER;
    private long newestMs = Lane.NEVER;
    private long aheadBytes;

    /** How long there was something to be known: not while Kafka is away, nor while held up. */
    private long clockMs;

    private long lookedAtMs;
    private boolean isReached;

    Lanes(EndProbe prober, int readers) {
        this.prober = prober;
        this.mostAheadBytes = MOST_AHEAD_BYTES / readers;
    }

    void own(TopicPartition partition, long nextOffset) {
        lanes.putIfAbsent(
                partition.partition(), new Lane(partition, Math.max(nextOffset, -1), clockMs));
    }

    void add(int partition, long offset, long ingestMs, int valueBytes) {
        long bytes = ROW_BYTES + valueBytes;
        lanes.get(partition).add(ingestMs, offset, bytes, clockMs);
        newestMs = Math.max(newestMs, ingestMs);
        aheadBytes += bytes;
    }

    /** Takes what Kafka said. */
    void saw(TopicLook look, int owned, long nowMs) {
        if (isReached) {
            clockMs += Math.max(0, Math.min(nowMs - lookedAtMs, LONGEST_TICK_MS));
        }
        lookedAtMs = nowMs;
        isReached = false;
        for (Lane lane : lanes.values()) {
            Long begin = look.begins().get(lane.partition);
            if (begin != null) {
                lane.startAt(begin);
            }
            Long end = look.ends().get(lane.partition);
            if (end != null) {
                // Partitions without a leader say nothing; the clock goes on if any of them does.
                isReached = true;
                lane.sawEnd(end, look.knownMs(), clockMs, prober);
            }
        }
        if (look.partitions() <= owned) {
            knownMs = Math.max(knownMs, look.knownMs());
        }
    }

    /** Returns the mark, which never goes back. */
    long mark() {
        long least = knownMs;
        for (Lane lane : lanes.values()) {
            least = Math.min(least, lane.mark());
        }
        markMs = Math.max(markMs, least);
        return markMs;
    }

    /** Forgets what is ahead no more, now that all readers are past an instant. */
    void reached(long allMs) {
        for (Lane lane : lanes.values()) {
            aheadBytes -= lane.drop(allMs);
        }
    }

    /**
     * Pauses the partitions that are ahead of all readers' mark if too much is, and lets them go on
     * when half of that is gone. The slowest goes on always, so that the mark does.
     *
     * @param change is told of the splits to pause and of those to resume.
     */
    void balance(long allMs, Change change) {
        List<String> toPause = new ArrayList<>();
        List<String> toResume = new ArrayList<>();
        for (Lane lane : lanes.values()) {
            boolean isAhead = lane.mark() > allMs;
            if (!lane.isPaused && isAhead && aheadBytes > mostAheadBytes) {
                lane.isPaused = true;
                toPause.add(split(lane));
            } else if (lane.isPaused && (!isAhead || aheadBytes <= mostAheadBytes / 2)) {
                lane.isPaused = false;
                toResume.add(split(lane));
            }
        }
        if (!toPause.isEmpty() || !toResume.isEmpty()) {
            change.apply(toPause, toResume);
        }
    }

    /** Told which splits to pause and which to resume. */
    interface Change {
        void apply(Collection<String> toPause, Collection<String> toResume);
    }

    private static String split(Lane lane) {
        return lane.partition.toString();
    }

    /** The newest record that a mark may pass. */
    long knownMs() {
        return knownMs;
    }

    /** The newest record that came in. */
    long newestMs() {
        return newestMs;
    }

    /** Whether there is something that the mark has yet to pass. */
    boolean isBehind() {
        return newestMs > markMs;
    }

    int size() {
        return lanes.size();
    }

    List<TopicPartition> partitions() {
        List<TopicPartition> all = new ArrayList<>();
        lanes.values().forEach(lane -> all.add(lane.partition));
        return all;
    }

    /** Those whose first offset is not known. */
    List<TopicPartition> unstarted() {
        List<TopicPartition> all = new ArrayList<>();
        for (Lane lane : lanes.values()) {
            if (!lane.isStarted()) {
                all.add(lane.partition);
            }
        }
        return all;
    }
}
