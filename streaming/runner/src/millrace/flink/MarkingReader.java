package millrace.flink;

import java.util.List;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.SourceEvent;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.flink.core.io.InputStatus;
import org.apache.flink.table.data.RowData;

/**
 * Reads its partitions of a topic, and says by watermarks how far their records' time has come: what
 * follows a mark is younger. Everything here is done by the task's thread.
 */
final class MarkingReader implements SourceReader<RowData, KafkaPartitionSplit> {
    private static final long LOOK_AGAIN_MS = 5;

    /** Others may wait for this reader's mark while nothing comes in here. */
    private static final long LOOK_IDLY_MS = 25;

    private static final long BUSY_MS = 1_000;

    /** What comes in from one look to the next at most, for until then it holds nobody back. */
    private static final long MOST_UNSEEN_BYTES = 8L << 20;

    private static final long TELL_CHANGES_MS = 200;
    private static final long TELL_AGAIN_MS = 1_000;

    private final SourceReaderContext context;
    private final SourceReader<RowData, KafkaPartitionSplit> records;
    private final EndProbe prober;
    private final Lanes lanes;
    private final TopicWatch watch;

    /** Without others, this reader knows by itself how far all are. */
    private final boolean isAlone;

    /** The next look at the topic; null: none was asked for. */
    private CompletableFuture<TopicLook> look;

    private long unseenBytes;
    private long busyUntilMs;
    private long emittedMs = Lane.NEVER;
    private MarkExchange.Reached reached = MarkExchange.Reached.NOBODY;
    private MarkExchange.Position told = MarkExchange.Position.NOWHERE;
    private long toldAtMs;

    /**
     * @param records brings the records.
     * @param arrivals tells of each that it brought.
     */
    MarkingReader(
            String topic,
            Properties client,
            SourceReaderContext context,
            SourceReader<RowData, KafkaPartitionSplit> records,
            Arrivals arrivals) {
        this.context = context;
        this.records = records;
        this.isAlone = context.currentParallelism() == 1;
        this.prober = new EndProbe(client);
        this.lanes = new Lanes(prober, context.currentParallelism());
        this.watch = new TopicWatch(topic, client);
        arrivals.tell(this::arrived);
    }

    private void arrived(int partition, long offset, long ingestMs, int valueBytes) {
        lanes.add(partition, offset, ingestMs, valueBytes);
        unseenBytes += 1 + valueBytes;
    }

    @Override
    public void start() {
        records.start();
        lookIn(LOOK_AGAIN_MS);
    }

    @Override
    public InputStatus pollNext(ReaderOutput<RowData> output) throws Exception {
        if (look != null && look.isDone()) {
            take(look.join(), output);
        }
        if (unseenBytes > MOST_UNSEEN_BYTES) {
            return InputStatus.NOTHING_AVAILABLE;
        }
        InputStatus status = records.pollNext(output);
        // Also of what is no news to the mark: only a look lets more come in.
        if (look == null && unseenBytes > 0) {
            lookIn(LOOK_AGAIN_MS);
        }
        return status;
    }

    private void take(TopicLook seen, ReaderOutput<RowData> output) {
        look = null;
        long nowMs = System.nanoTime() / 1_000_000;
        if (seen != null) {
            unseenBytes = 0;
            long before = lanes.knownMs();
            lanes.saw(seen, isAlone ? lanes.size() : reached.partitions(), nowMs);
            if (lanes.knownMs() > before) {
                busyUntilMs = nowMs + BUSY_MS;
            }
        }
        long markMs = lanes.mark();
        if (markMs > emittedMs) {
            emittedMs = markMs;
            output.emitWatermark(new Watermark(markMs));
        }
        long allMs = isAlone ? markMs : reached.markMs();
        lanes.reached(allMs);
        lanes.balance(allMs, records::pauseOrResumeSplits);
        if (!isAlone) {
            tell(new MarkExchange.Position(markMs, lanes.size()), nowMs);
        }
        if (lanes.isBehind() || unseenBytes > 0 || !isAlone) {
            boolean isBusy = lanes.isBehind() || nowMs < busyUntilMs;
            lookIn(isBusy ? LOOK_AGAIN_MS : LOOK_IDLY_MS);
        }
    }

    private void tell(MarkExchange.Position position, long nowMs) {
        long passedMs = nowMs - toldAtMs;
        boolean hasMoved = passedMs >= TELL_CHANGES_MS && !position.equals(told);
        // What was told may be lost with the coordinator's memory.
        if (hasMoved || passedMs >= TELL_AGAIN_MS || position.partitions() != told.partitions()) {
            context.sendSourceEventToCoordinator(position);
            told = position;
            toldAtMs = nowMs;
        }
    }

    private void lookIn(long delayMs) {
        look =
                watch.look(
                        delayMs,
                        lanes.partitions(),
                        lanes.unstarted(),
                        lanes.newestMs(),
                        isAlone);
    }

    @Override
    public CompletableFuture<Void> isAvailable() {
        CompletableFuture<Void> available = records.isAvailable();
        if (look == null) {
            return available;
        }
        if (unseenBytes > MOST_UNSEEN_BYTES) {
            return look.thenApply(seen -> null);
        }
        return available.isDone()
                ? available
                : CompletableFuture.anyOf(available, look).thenApply(any -> null);
    }

    @Override
    public void addSplits(List<KafkaPartitionSplit> splits) {
        for (KafkaPartitionSplit split : splits) {
            lanes.own(split.getTopicPartition(), split.getStartingOffset());
        }
        records.addSplits(splits);
        if (look == null) {
            lookIn(LOOK_AGAIN_MS);
        }
    }

    @Override
    public void handleSourceEvents(SourceEvent event) {
        if (event instanceof MarkExchange.Reached all) {
            reached = all;
        } else {
            records.handleSourceEvents(event);
        }
    }

    @Override
    public List<KafkaPartitionSplit> snapshotState(long checkpointId) {
        return records.snapshotState(checkpointId);
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) throws Exception {
        records.notifyCheckpointComplete(checkpointId);
    }

    @Override
    public void notifyCheckpointAborted(long checkpointId) throws Exception {
        records.notifyCheckpointAborted(checkpointId);
    }

    @Override
    public void notifyNoMoreSplits() {
        records.notifyNoMoreSplits();
    }

    @Override
    public void close() throws Exception {
        watch.close();
        prober.close();
        records.close();
    }
}
