package millrace.flink;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.connector.source.SourceEvent;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.connector.kafka.source.enumerator.KafkaSourceEnumState;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;

/**
 * Gives a topic's partitions to its readers, and tells them how far all of them are: who is too far
 * ahead waits. No event's order hangs on it.
 */
final class MarkExchange implements SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> {
    /** Where a reader is: its mark, and how many partitions it has. */
    record Position(long markMs, int partitions) implements SourceEvent {
        static final Position NOWHERE = new Position(Lane.NEVER, 0);
    }

    /** Where all readers are: the least of their marks, and how many partitions they have. */
    record Reached(long markMs, int partitions) implements SourceEvent {
        static final Reached NOBODY = new Reached(Lane.NEVER, 0);
    }

    private static final long TELL_MS = 200;

    private final SplitEnumeratorContext<KafkaPartitionSplit> context;
    private final SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> partitions;
    private final Map<Integer, Position> positions = new HashMap<>();
    private Reached told = Reached.NOBODY;

    MarkExchange(
            SplitEnumeratorContext<KafkaPartitionSplit> context,
            SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> partitions) {
        this.context = context;
        this.partitions = partitions;
    }

    @Override
    public void start() {
        partitions.start();
        if (context.currentParallelism() > 1) {
            context.callAsync(() -> true, (due, failure) -> tell(), TELL_MS, TELL_MS);
        }
    }

    private void tell() {
        if (positions.size() < context.currentParallelism()) {
            return;
        }
        long least = Long.MAX_VALUE;
        int all = 0;
        for (Position position : positions.values()) {
            least = Math.min(least, position.markMs());
            all += position.partitions();
        }
        Reached reached = new Reached(least, all);
        if (!reached.equals(told)) {
            told = reached;
            context.registeredReaders().keySet().forEach(
                    reader -> context.sendEventToSourceReader(reader, reached));
        }
    }

    @Override
    public void handleSourceEvent(int reader, SourceEvent event) {
        if (event instanceof Position position) {
            positions.put(reader, position);
        } else {
            partitions.handleSourceEvent(reader, event);
        }
    }

    @Override
    public void addReader(int reader) {
        // One that comes back is elsewhere, and so are the others, which come back with it.
        positions.clear();
        told = Reached.NOBODY;
        partitions.addReader(reader);
    }

    @Override
    public void handleSplitRequest(int reader, String host) {
        partitions.handleSplitRequest(reader, host);
    }

    @Override
    public void addSplitsBack(List<KafkaPartitionSplit> splits, int reader) {
        partitions.addSplitsBack(splits, reader);
    }

    @Override
    public KafkaSourceEnumState snapshotState(long checkpointId) throws Exception {
        return partitions.snapshotState(checkpointId);
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) throws Exception {
        partitions.notifyCheckpointComplete(checkpointId);
    }

    @Override
    public void close() throws IOException {
        partitions.close();
    }
}
