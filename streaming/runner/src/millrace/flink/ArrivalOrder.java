package millrace.flink;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.Admin;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.IsolationLevel;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.KafkaFuture;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartitionInfo;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.RowData;

/**
 * Brings the records of a topic's partitions into the order in which they arrived in Kafka.
 *
 * <p>A reader takes partitions in turns, and after a pause is thousands of records further in one
 * than in another: of two copies of an event, the later could come first, and be the one that
 * counts. So a record waits here until every other partition is known to bring nothing older: it
 * brought something as young, or it was at its end when Kafka was asked after this record came in.
 * On a live topic that takes some milliseconds.
 *
 * <p>The order is that of the records' timestamps, then of partitions. It is exact if the broker
 * stamps the records. Waiting is bounded in time and memory: a partition that cannot be read, or
 * that is very far behind, delays the others and never stops them.
 */
final class ArrivalOrder extends AbstractStreamOperator<RowData>
        implements OneInputStreamOperator<RowData, RowData>, ProcessingTimeCallback {
    private static final long serialVersionUID = 1L;

    private static final long LOOK_AGAIN_MS = 5;
    private static final ListOffsetsOptions READABLE =
            new ListOffsetsOptions(IsolationLevel.READ_COMMITTED).timeoutMs(1_000);

    /** What the clock goes on by at most from one look to the next: who was held up saw nothing. */
    private static final long LONGEST_TICK_MS = 50;

    private static final long LONGEST_WAIT_MS = 30_000;
    private static final long MOST_HELD_BYTES = 64L << 20;
    private static final int ROW_BYTES = 256;

    private static final int VALUE = 0;
    private static final int INGEST_MS = 1;
    private static final int PARTITION = 2;
    private static final int OFFSET = 3;

    private final String topic;
    private final Properties client;
    private final TypeInformation<RowData> type;

    private transient ListState<RowData> heldState;
    private transient ListState<Tuple2<Integer, Long>> offsetState;

    /** By partition, so that the lower one is first among records of the same instant. */
    private transient TreeMap<Integer, Lane> lanes;

    private transient Admin admin;
    private transient EndProbe prober;
    private transient ListOffsetsResult answer;
    private transient long askedNumber;
    private transient long cameIn;
    private transient int heldCount;
    private transient long heldBytes;
    private transient boolean isTicking;

    /**
     * How long there was something to be known. It stands still while Kafka is away and while what
     * comes after this operator holds it up: nothing can show then that a partition is at its end.
     */
    private transient long clockMs;

    private transient long lookedAtMs;
    private transient boolean isReached;
    private transient StreamRecord<RowData> reused;

    ArrivalOrder(String topic, Properties client, TypeInformation<RowData> type) {
        this.topic = topic;
        this.client = client;
        this.type = type;
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        lanes = new TreeMap<>();
        heldState =
                context.getOperatorStateStore()
                        .getListState(new ListStateDescriptor<>("held", type));
        offsetState =
                context.getOperatorStateStore()
                        .getListState(
                                new ListStateDescriptor<>(
                                        "offsets", Types.TUPLE(Types.INT, Types.LONG)));
        for (RowData row : heldState.get()) {
            hold(row);
        }
        for (Tuple2<Integer, Long> offset : offsetState.get()) {
            lane(offset.f0).nextOffset = offset.f1;
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        reused = new StreamRecord<>(null);
        admin = Admin.create(client);
        prober = new EndProbe(client);
        Map<TopicPartition, OffsetSpec> earliest = new HashMap<>();
        for (TopicPartitionInfo partition :
                admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions()) {
            earliest.put(new TopicPartition(topic, partition.partition()), OffsetSpec.earliest());
        }
        for (Map.Entry<TopicPartition, ListOffsetsResultInfo> start :
                admin.listOffsets(earliest).all().get().entrySet()) {
            Lane lane = lane(start.getKey().partition());
            lane.nextOffset = Math.max(lane.nextOffset, start.getValue().offset());
        }
        settle();
    }

    @Override
    public void processElement(StreamRecord<RowData> element) throws Exception {
        hold(element.getValue());
        settle();
    }

    @Override
    public void onProcessingTime(long atMs) throws Exception {
        isTicking = false;
        settle();
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        List<RowData> rows = new ArrayList<>(heldCount);
        List<Tuple2<Integer, Long>> offsets = new ArrayList<>();
        for (Lane lane : lanes.values()) {
            lane.held.forEach(one -> rows.add(one.row()));
            offsets.add(Tuple2.of(lane.partition, lane.nextOffset));
        }
        heldState.update(rows);
        offsetState.update(offsets);
    }

    @Override
    public void close() throws Exception {
        if (admin != null) {
            admin.close(Duration.ZERO);
        }
        if (prober != null) {
            prober.close();
        }
        super.close();
    }

    private void hold(RowData row) {
        Lane lane = lane(row.getInt(PARTITION));
        lane.add(row, row.getLong(INGEST_MS), row.getLong(OFFSET), ++cameIn, clockMs);
        heldCount++;
        heldBytes += bytes(row);
    }

    /** About what a row takes. */
    private static long bytes(RowData row) {
        return ROW_BYTES + (row.isNullAt(VALUE) ? 0 : row.getBinary(VALUE).length);
    }

    private Lane lane(int partition) {
        return lanes.computeIfAbsent(partition, it -> new Lane(it, 0, clockMs));
    }

    /** Lets go what need not wait, and asks about the rest. */
    private void settle() throws Exception {
        long nowMs = getProcessingTimeService().getCurrentProcessingTime();
        if (isReached) {
            clockMs += Math.max(0, Math.min(nowMs - lookedAtMs, LONGEST_TICK_MS));
        }
        lookedAtMs = nowMs;
        takeAnswer();
        release();
        if (heldCount == 0) {
            return;
        }
        if (answer == null) {
            ask();
        }
        if (!isTicking) {
            isTicking = true;
            getProcessingTimeService().registerTimer(nowMs + LOOK_AGAIN_MS, this);
        }
    }

    private void release() {
        while (heldCount > 0) {
            Lane first = oldest();
            if (!isDue(first)) {
                return;
            }
            RowData row = first.held.poll().row();
            heldCount--;
            heldBytes -= bytes(row);
            output.collect(reused.replace(row));
        }
    }

    private Lane oldest() {
        Lane first = null;
        for (Lane lane : lanes.values()) {
            Lane.Held head = lane.held.peek();
            if (head != null && (first == null || head.ingestMs() < first.held.peek().ingestMs())) {
                first = lane;
            }
        }
        return first;
    }

    private boolean isDue(Lane first) {
        Lane.Held head = first.held.peek();
        if (heldBytes > MOST_HELD_BYTES || clockMs - head.sinceMs() >= LONGEST_WAIT_MS) {
            return true;
        }
        for (Lane lane : lanes.values()) {
            if (lane != first && lane.held.isEmpty() && !lane.isPast(head)) {
                return false;
            }
        }
        return true;
    }

    private void ask() {
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        for (Lane lane : lanes.values()) {
            latest.put(new TopicPartition(topic, lane.partition), OffsetSpec.latest());
        }
        askedNumber = cameIn;
        answer = admin.listOffsets(latest, READABLE);
    }

    private void takeAnswer() throws Exception {
        if (answer == null || !answer.all().isDone()) {
            return;
        }
        ListOffsetsResult given = answer;
        answer = null;
        // Partitions without a leader say nothing; the clock goes on if any of them does.
        isReached = false;
        for (Lane lane : lanes.values()) {
            KafkaFuture<ListOffsetsResultInfo> end =
                    given.partitionResult(new TopicPartition(topic, lane.partition));
            if (!end.isCompletedExceptionally()) {
                isReached = true;
                lane.sawEnd(end.getNow(null).offset(), askedNumber, clockMs, topic, prober);
            }
        }
    }
}
