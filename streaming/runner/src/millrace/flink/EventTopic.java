package millrace.flink;

import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.source.DataStreamScanProvider;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.ScanTableSource;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.util.Collector;

/** A topic as a table; see {@link EventTopicFactory}. */
final class EventTopic implements ScanTableSource {
    private final String topic;
    private final Properties client;
    private final boolean isOrdered;
    private final DataType rows;

    EventTopic(String topic, Properties client, boolean isOrdered, DataType rows) {
        this.topic = topic;
        this.client = client;
        this.isOrdered = isOrdered;
        this.rows = rows;
    }

    @Override
    public ChangelogMode getChangelogMode() {
        return ChangelogMode.insertOnly();
    }

    @Override
    public ScanRuntimeProvider getScanRuntimeProvider(ScanContext context) {
        TypeInformation<RowData> type = context.createTypeInformation(rows);
        return new DataStreamScanProvider() {
            @Override
            public DataStream<RowData> produceDataStream(
                    ProviderContext provider, StreamExecutionEnvironment environment) {
                return read(provider, environment, type);
            }

            @Override
            public boolean isBounded() {
                return false;
            }
        };
    }

    private DataStream<RowData> read(
            ProviderContext provider,
            StreamExecutionEnvironment environment,
            TypeInformation<RowData> type) {
        KafkaSource<RowData> source =
                KafkaSource.<RowData>builder()
                        .setProperties(client)
                        .setTopics(topic)
                        .setStartingOffsets(OffsetsInitializer.earliest())
                        .setDeserializer(new Records(type))
                        .build();
        SingleOutputStreamOperator<RowData> records =
                environment.fromSource(source, WatermarkStrategy.noWatermarks(), topic);
        provider.generateUid("records").ifPresent(records::uid);
        if (!isOrdered) {
            return records;
        }
        // One reader sees all partitions; two could not know how far the other is.
        records.setParallelism(1);
        SingleOutputStreamOperator<RowData> ordered =
                records.transform("order of arrival", type, new ArrivalOrder(topic, client, type));
        provider.generateUid("order").ifPresent(ordered::uid);
        return ordered.setParallelism(1);
    }

    @Override
    public DynamicTableSource copy() {
        return new EventTopic(topic, client, isOrdered, rows);
    }

    @Override
    public String asSummaryString() {
        return "event topic " + topic;
    }

    /** Turns Kafka's records into rows. */
    private static final class Records implements KafkaRecordDeserializationSchema<RowData> {
        private static final long serialVersionUID = 1L;

        private final TypeInformation<RowData> type;

        Records(TypeInformation<RowData> type) {
            this.type = type;
        }

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<RowData> out) {
            out.collect(
                    GenericRowData.of(
                            record.value(),
                            record.timestamp(),
                            record.partition(),
                            record.offset()));
        }

        @Override
        public TypeInformation<RowData> getProducedType() {
            return type;
        }
    }
}
