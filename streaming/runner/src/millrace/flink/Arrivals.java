package millrace.flink;

import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.util.Collector;

/** Turns Kafka's records into rows, and tells of each as it goes out. */
final class Arrivals implements KafkaRecordDeserializationSchema<RowData> {
    private static final long serialVersionUID = 1L;

    /** Told of records by the thread that hands them out. */
    interface Listener {
        void arrived(int partition, long offset, long ingestMs, int valueBytes);
    }

    private final TypeInformation<RowData> type;
    private transient Listener listener;

    Arrivals(TypeInformation<RowData> type) {
        this.type = type;
    }

    void tell(Listener wanted) {
        listener = wanted;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<RowData> out) {
        byte[] value = record.value();
        out.collect(
                GenericRowData.of(
                        value, record.timestamp(), record.partition(), record.offset()));
        if (listener != null) {
            listener.arrived(
                    record.partition(),
                    record.offset(),
                    record.timestamp(),
                    value == null ? 0 : value.length);
        }
    }

    @Override
    public TypeInformation<RowData> getProducedType() {
        return type;
    }
}
