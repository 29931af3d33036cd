package millrace.flink;

import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.source.DataStreamScanProvider;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.ScanTableSource;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;

/** A topic as a table; see {@link EventTopicFactory}. */
final class EventTopic implements ScanTableSource {
    /** A partition that is new holds up those that wait for all, until a reader has it. */
    private static final String DISCOVERY_MS = "10000";

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
        SingleOutputStreamOperator<RowData> records =
                environment.fromSource(
                        isOrdered
                                ? new OrderedTopic(topic, client, type)
                                : records(topic, client, new Arrivals(type)),
                        WatermarkStrategy.noWatermarks(),
                        topic,
                        type);
        provider.generateUid("records").ifPresent(records::uid);
        return records;
    }

    static KafkaSource<RowData> records(String topic, Properties client, Arrivals arrivals) {
        return KafkaSource.<RowData>builder()
                .setProperties(client)
                .setProperty("partition.discovery.interval.ms", DISCOVERY_MS)
                .setTopics(topic)
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(arrivals)
                .build();
    }

    @Override
    public DynamicTableSource copy() {
        return new EventTopic(topic, client, isOrdered, rows);
    }

    @Override
    public String asSummaryString() {
        return "event topic " + topic;
    }
}
