package millrace.flink;

import java.io.DataInputStream;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataInputViewStreamWrapper;
import org.apache.flink.core.memory.DataOutputViewStreamWrapper;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.KeyGroupStatePartitionStreamProvider;
import org.apache.flink.runtime.state.KeyedStateCheckpointOutputStream;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.RowData;

/**
 * Keeps the first copy of each event, in the order of arrival in Kafka: by the records' timestamps,
 * then by partition and offset. A copy that comes later than a horizon after the one before it counts
 * again; an event without an id is nobody's copy.
 *
 * <p>Readers take partitions in turns, and are thousands of records further in one than in another:
 * of two copies, the later could come here first. So a row waits until the marks of all readers (see
 * {@link MarkingReader}) have passed its arrival. On a live topic that takes some milliseconds, and
 * readers let no partition get far ahead, so little waits: {@link Lanes#MOST_AHEAD_BYTES} at most, and
 * what readers bring from one look at the topic to the next.
 */
final class FirstCopies extends AbstractStreamOperator<RowData>
        implements OneInputStreamOperator<RowData, RowData> {
    private static final long serialVersionUID = 1L;

    private final FirstCopiesTable.Columns columns;
    private final FirstCopiesTable.Keys keys;
    private final TypeInformation<RowData> type;
    private final long horizonMs;
    private final Duration kept;

    private transient ValueState<Long> lastArrival;
    private transient TypeSerializer<RowData> serializer;

    /** What waits, by partition; of each in the order of its offsets. */
    private transient Map<Integer, ArrayDeque<RowData>> held;

    private transient PriorityQueue<ArrayDeque<RowData>> due;
    private transient StreamRecord<RowData> reused;
    private transient long markMs;

    /**
     * @param horizonMs within which a copy does not count.
     * @param kept how long an id is remembered after its last copy.
     */
    FirstCopies(
            FirstCopiesTable.Columns columns,
            FirstCopiesTable.Keys keys,
            TypeInformation<RowData> type,
            long horizonMs,
            Duration kept) {
        this.columns = columns;
        this.keys = keys;
        this.type = type;
        this.horizonMs = horizonMs;
        this.kept = kept;
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        ValueStateDescriptor<Long> descriptor =
                new ValueStateDescriptor<>("last arrival", Types.LONG);
        descriptor.enableTimeToLive(StateTtlConfig.newBuilder(kept).build());
        lastArrival = context.getKeyedStateStore().getState(descriptor);
        serializer = type.createSerializer(getExecutionConfig().getSerializerConfig());
        reused = new StreamRecord<>(null);
        markMs = Lane.NEVER;
        held = new HashMap<>();
        due =
                new PriorityQueue<>(
                        Comparator.<ArrayDeque<RowData>>comparingLong(
                                        lane -> lane.peek().getLong(columns.ingestMs()))
                                .thenComparingInt(
                                        lane -> lane.peek().getInt(columns.partition())));
        List<RowData> rows = new ArrayList<>();
        for (KeyGroupStatePartitionStreamProvider group : context.getRawKeyedStateInputs()) {
            restore(group, rows);
        }
        rows.sort(Comparator.comparingLong(row -> row.getLong(columns.offset())));
        rows.forEach(this::hold);
    }

    private void restore(KeyGroupStatePartitionStreamProvider group, List<RowData> rows)
            throws Exception {
        DataInputViewStreamWrapper in =
                new DataInputViewStreamWrapper(new DataInputStream(group.getStream()));
        for (int left = in.readInt(); left > 0; left--) {
            rows.add(serializer.deserialize(in));
        }
    }

    @Override
    protected boolean isUsingCustomRawKeyedState() {
        return true;
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        // By the groups of their keys, so that they follow their ids to wherever these are restored.
        Map<Integer, List<RowData>> rows = new HashMap<>();
        int groups = getRuntimeContext().getTaskInfo().getMaxNumberOfParallelSubtasks();
        for (ArrayDeque<RowData> lane : held.values()) {
            for (RowData row : lane) {
                int group = KeyGroupRangeAssignment.assignToKeyGroup(keys.getKey(row), groups);
                rows.computeIfAbsent(group, it -> new ArrayList<>()).add(row);
            }
        }
        KeyedStateCheckpointOutputStream stream = context.getRawKeyedOperatorStateOutput();
        DataOutputViewStreamWrapper out = new DataOutputViewStreamWrapper(stream);
        for (int group : stream.getKeyGroupList()) {
            stream.startNewKeyGroup(group);
            List<RowData> some = rows.getOrDefault(group, List.of());
            out.writeInt(some.size());
            for (RowData row : some) {
                serializer.serialize(row, out);
            }
        }
    }

    @Override
    public void processElement(StreamRecord<RowData> element) throws Exception {
        RowData row = element.getValue();
        if (row.isNullAt(columns.id())) {
            output.collect(element);
        } else if (row.getLong(columns.ingestMs()) <= markMs) {
            pass(row); // its producer or its broker set it back
        } else {
            hold(row);
        }
    }

    private void hold(RowData row) {
        held.computeIfAbsent(row.getInt(columns.partition()), it -> new ArrayDeque<>()).add(row);
    }

    /** Lets go what has waited for this; nothing behind this operator has use for the mark. */
    @Override
    public void processWatermark(Watermark mark) throws Exception {
        markMs = mark.getTimestamp();
        for (ArrayDeque<RowData> lane : held.values()) {
            if (isDue(lane)) {
                due.add(lane);
            }
        }
        while (!due.isEmpty()) {
            ArrayDeque<RowData> lane = due.poll();
            RowData row = lane.poll();
            setCurrentKey(keys.getKey(row));
            pass(row);
            if (isDue(lane)) {
                due.add(lane);
            }
        }
    }

    private boolean isDue(ArrayDeque<RowData> lane) {
        return !lane.isEmpty() && lane.peek().getLong(columns.ingestMs()) <= markMs;
    }

    private void pass(RowData row) throws Exception {
        long arrivedMs = row.getLong(columns.ingestMs());
        Long before = lastArrival.value();
        lastArrival.update(arrivedMs);
        if (before == null || arrivedMs - before > horizonMs) {
            output.collect(reused.replace(row));
        }
    }
}
