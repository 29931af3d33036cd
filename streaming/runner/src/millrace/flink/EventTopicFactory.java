package millrace.flink;

import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.factories.DynamicTableSourceFactory;
import org.apache.flink.table.factories.FactoryUtil;

/**
 * {@code 'connector' = 'event-topic'}: the records of a Kafka topic, from its beginning on.
 *
 * <p>Its columns are {@code value BYTES, ingest_ms BIGINT, partition INT, offset BIGINT}, by place.
 * With {@code 'ordered' = 'true'} records of all partitions come in the order in which they arrived
 * in Kafka, see {@link ArrivalOrder}.
 */
public final class EventTopicFactory implements DynamicTableSourceFactory {
    private static final String CLIENT_PREFIX = "properties.";
    private static final ConfigOption<String> TOPIC =
            ConfigOptions.key("topic").stringType().noDefaultValue();
    private static final ConfigOption<Boolean> ORDERED =
            ConfigOptions.key("ordered").booleanType().defaultValue(false);

    @Override
    public String factoryIdentifier() {
        return "event-topic";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(TOPIC);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of(ORDERED);
    }

    @Override
    public DynamicTableSource createDynamicTableSource(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        helper.validateExcept(CLIENT_PREFIX);
        Properties client = new Properties();
        // What a producer took back is no event, here as in the archive.
        client.setProperty("isolation.level", "read_committed");
        for (Map.Entry<String, String> option : context.getCatalogTable().getOptions().entrySet()) {
            if (option.getKey().startsWith(CLIENT_PREFIX)) {
                String name = option.getKey().substring(CLIENT_PREFIX.length());
                client.setProperty(name, option.getValue());
            }
        }
        return new EventTopic(
                helper.getOptions().get(TOPIC),
                client,
                helper.getOptions().get(ORDERED),
                context.getPhysicalRowDataType());
    }
}
