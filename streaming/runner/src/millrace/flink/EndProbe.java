package millrace.flink;

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Finds out whether offsets before a partition's end hold any record. The marks of transactions and
 * what was aborted have offsets, and no reader is ever given them; from without, they look like
 * records that a slow reader has yet to bring.
 */
final class EndProbe implements AutoCloseable {
    private static final Duration PATIENCE = Duration.ofMillis(500);

    private final Properties client;
    private final ExecutorService thread =
            Executors.newSingleThreadExecutor(
                    work -> {
                        Thread made = new Thread(work, "end probe");
                        made.setDaemon(true);
                        return made;
                    });

    /** Of the thread alone. */
    private KafkaConsumer<byte[], byte[]> consumer;

    EndProbe(Properties client) {
        this.client = new Properties();
        this.client.putAll(client);
        this.client.remove("group.id");
        this.client.setProperty("enable.auto.commit", "false");
        this.client.setProperty("auto.offset.reset", "none");
        this.client.setProperty("max.poll.records", "1");
    }

    /**
     * Asks in the background.
     *
     * @return true if none of the offsets from {@code from} to before {@code end} holds a record for a
     *     reader, false if one does or it did not show in time; failed if Kafka cannot say.
     */
    CompletableFuture<Boolean> isEmpty(TopicPartition partition, long from, long end) {
        return CompletableFuture.supplyAsync(() -> look(partition, from, end), thread);
    }

    private boolean look(TopicPartition partition, long from, long end) {
        if (consumer == null) {
            consumer =
                    new KafkaConsumer<>(
                            client, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        }
        consumer.assign(List.of(partition));
        consumer.seek(partition, from);
        var records = consumer.poll(PATIENCE).records(partition);
        return records.isEmpty()
                ? consumer.position(partition, PATIENCE) >= end
                : records.get(0).offset() >= end;
    }

    @Override
    public void close() {
        thread.execute(
                () -> {
                    if (consumer != null) {
                        consumer.close(Duration.ZERO);
                    }
                });
        thread.shutdown();
    }
}
