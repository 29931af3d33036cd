package millrace.flink;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.api.internal.TableEnvironmentInternal;
import org.apache.flink.table.operations.Operation;
import org.apache.flink.table.operations.ddl.CreateTableOperation;

/**
 * Runs a script of SQL statements as one job.
 *
 * <p>The script comes as base64 in the first argument. A line that holds only a semicolon ends a
 * statement; every INSERT becomes part of one statement set. A table of the connector {@code
 * first-copies} is made here, over another table; see {@link FirstCopiesTable}.
 */
public final class SqlRunner {
    private static final String STATEMENT_END = "(?m)^;\\s*$";

    private SqlRunner() {}

    public static void main(String[] arguments) {
        String script =
                new String(Base64.getDecoder().decode(arguments[0]), StandardCharsets.UTF_8);
        StreamTableEnvironment tables =
                StreamTableEnvironment.create(StreamExecutionEnvironment.getExecutionEnvironment());
        StatementSet inserts = tables.createStatementSet();
        for (String part : script.split(STATEMENT_END)) {
            String statement = part.strip();
            if (statement.regionMatches(true, 0, "INSERT", 0, "INSERT".length())) {
                inserts.addInsertSql(statement);
            } else if (!statement.isEmpty()) {
                declare(tables, statement);
            }
        }
        inserts.execute();
    }

    private static void declare(StreamTableEnvironment tables, String statement) {
        Operation operation =
                ((TableEnvironmentInternal) tables).getParser().parse(statement).get(0);
        if (operation instanceof CreateTableOperation table) {
            Map<String, String> options = table.getCatalogTable().getOptions();
            if (FirstCopiesTable.CONNECTOR.equals(options.get("connector"))) {
                tables.createTemporaryView(
                        table.getTableIdentifier().getObjectName(),
                        FirstCopiesTable.of(tables, options));
                return;
            }
        }
        tables.executeSql(statement);
    }
}
