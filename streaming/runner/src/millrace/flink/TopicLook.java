package millrace.flink;

import java.util.Map;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;

/**
 * What Kafka said of a topic at one look.
 *
 * @param partitions how many it has.
 * @param knownMs the newest record that was known some milliseconds before the look.
 * @param begins first offsets, of the partitions for which they were asked and given.
 * @param ends the offsets after the last record that may be read, of those that have a leader.
 */
record TopicLook(
        int partitions,
        long knownMs,
        Map<TopicPartition, Long> begins,
        Map<TopicPartition, Long> ends) {}
