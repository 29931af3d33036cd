package millrace.flink;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Runs a script of SQL statements as one job.
 *
 * <p>The script comes as base64 in the first argument. A line that holds only a semicolon ends a
 * statement; every INSERT becomes part of one statement set.
 */
public final class SqlRunner {
    private static final String STATEMENT_END = "(?m)^;\\s*$";

    private SqlRunner() {}

    public static void main(String[] arguments) {
        String script =
                new String(Base64.getDecoder().decode(arguments[0]), StandardCharsets.UTF_8);
        TableEnvironment tables =
                TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        StatementSet inserts = tables.createStatementSet();
        for (String part : script.split(STATEMENT_END)) {
            String statement = part.strip();
            if (statement.regionMatches(true, 0, "INSERT", 0, "INSERT".length())) {
                inserts.addInsertSql(statement);
            } else if (!statement.isEmpty()) {
                tables.executeSql(statement);
            }
        }
        inserts.execute();
    }
}
