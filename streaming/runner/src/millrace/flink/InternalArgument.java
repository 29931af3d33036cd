package millrace.flink;

import java.util.Optional;
import java.util.Set;
import org.apache.flink.table.functions.FunctionDefinition;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.ArgumentTypeStrategy;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.Signature.Argument;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.utils.DataTypeUtils;

/**
 * An argument of one of some types that arrives as Flink holds it inside: text as StringData, say.
 * Nothing is converted per row, and no implicit cast hides a literal.
 */
final class InternalArgument implements ArgumentTypeStrategy {
    private final String name;
    private final Set<LogicalTypeRoot> roots;

    private InternalArgument(String name, Set<LogicalTypeRoot> roots) {
        this.name = name;
        this.roots = roots;
    }

    static InternalArgument of(String name, LogicalTypeRoot... roots) {
        return new InternalArgument(name, Set.of(roots));
    }

    @Override
    public Optional<DataType> inferArgumentType(
            CallContext call, int position, boolean throwOnFailure) {
        DataType type = call.getArgumentDataTypes().get(position);
        if (roots.contains(type.getLogicalType().getTypeRoot())) {
            return Optional.of(DataTypeUtils.toInternalDataType(type));
        }
        return call.fail(throwOnFailure, "%s cannot be %s.", name, type);
    }

    @Override
    public Argument getExpectedArgument(FunctionDefinition function, int position) {
        return Argument.of(name);
    }
}
