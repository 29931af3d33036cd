package millrace.flink;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.Admin;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.DescribeTopicsResult;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.IsolationLevel;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;

/** Looks at a topic when it is told to, on a thread of its own. */
final class TopicWatch implements AutoCloseable {
    private static final int PATIENCE_MS = 1_000;
    private static final ListOffsetsOptions READABLE =
            new ListOffsetsOptions(IsolationLevel.READ_COMMITTED).timeoutMs(PATIENCE_MS);
    private static final ListOffsetsOptions ALL = new ListOffsetsOptions().timeoutMs(PATIENCE_MS);
    private static final DescribeTopicsOptions DESCRIBED =
            new DescribeTopicsOptions().timeoutMs(PATIENCE_MS);

    private final String topic;
    private final Admin admin;
    private final ScheduledExecutorService thread =
            Executors.newSingleThreadScheduledExecutor(
                    work -> {
                        Thread made = new Thread(work, "topic watch");
                        made.setDaemon(true);
                        return made;
                    });

    // Of the thread alone.
    private int partitions;
    private long knownMs = Lane.NEVER;

    TopicWatch(String topic, Properties client) {
        this.topic = topic;
        this.admin = Admin.create(client);
    }

    /**
     * Looks once.
     *
     * @param delayMs from now; some, so that what a reader knows now is older by a tick of the
     *     brokers' clock than what is appended after the look.
     * @param own whose ends are wanted.
     * @param unstarted whose first offsets are wanted.
     * @param newestMs the newest record that the reader knows now.
     * @param isAlone whether no other reader knows more.
     * @return null if Kafka did not answer.
     */
    CompletableFuture<TopicLook> look(
            long delayMs,
            List<TopicPartition> own,
            List<TopicPartition> unstarted,
            long newestMs,
            boolean isAlone) {
        CompletableFuture<TopicLook> look = new CompletableFuture<>();
        thread.schedule(
                () -> look.complete(looked(own, unstarted, newestMs, isAlone)),
                delayMs,
                TimeUnit.MILLISECONDS);
        return look;
    }

    private TopicLook looked(
            List<TopicPartition> own,
            List<TopicPartition> unstarted,
            long newestMs,
            boolean isAlone) {
        try {
            // What the last look found is known since then.
            long known = Math.max(knownMs, newestMs);
            DescribeTopicsResult described = admin.describeTopics(List.of(topic), DESCRIBED);
            ListOffsetsResult ends = asked(own, OffsetSpec.latest(), READABLE);
            ListOffsetsResult begins = asked(unstarted, OffsetSpec.earliest(), ALL);
            ListOffsetsResult newest =
                    isAlone ? null : asked(all(), OffsetSpec.maxTimestamp(), ALL);
            if (newest != null) {
                for (ListOffsetsResultInfo one : given(newest, all()).values()) {
                    knownMs = Math.max(knownMs, one.timestamp());
                }
            }
            partitions = described.allTopicNames().get().get(topic).partitions().size();
            return new TopicLook(
                    partitions, known, offsets(begins, unstarted), offsets(ends, own));
        } catch (InterruptedException interruption) {
            Thread.currentThread().interrupt();
            return null;
        } catch (ExecutionException | RuntimeException unanswered) {
            return null; // the next look may be answered
        }
    }

    private List<TopicPartition> all() {
        return IntStream.range(0, partitions)
                .mapToObj(partition -> new TopicPartition(topic, partition))
                .toList();
    }

    private ListOffsetsResult asked(
            Collection<TopicPartition> of, OffsetSpec what, ListOffsetsOptions options) {
        Map<TopicPartition, OffsetSpec> question = new HashMap<>();
        of.forEach(partition -> question.put(partition, what));
        return question.isEmpty() ? null : admin.listOffsets(question, options);
    }

    private static Map<TopicPartition, Long> offsets(
            ListOffsetsResult answer, Collection<TopicPartition> of) throws InterruptedException {
        Map<TopicPartition, Long> found = new HashMap<>();
        given(answer, of).forEach((partition, one) -> found.put(partition, one.offset()));
        return found;
    }

    /** Waits for the answer of each partition, and leaves out those that have none. */
    private static Map<TopicPartition, ListOffsetsResultInfo> given(
            ListOffsetsResult answer, Collection<TopicPartition> of) throws InterruptedException {
        Map<TopicPartition, ListOffsetsResultInfo> found = new HashMap<>();
        for (TopicPartition partition : answer == null ? List.<TopicPartition>of() : of) {
            try {
                found.put(partition, answer.partitionResult(partition).get());
            } catch (ExecutionException noLeader) {
                continue;
            }
        }
        return found;
    }

    @Override
    public void close() {
        thread.shutdownNow();
        admin.close(Duration.ZERO);
    }
}
