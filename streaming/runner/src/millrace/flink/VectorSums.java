package millrace.flink;

import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.functions.AggregateFunction;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.utils.DataTypeUtils;

/**
 * {@code vector_sums(ARRAY<FLOAT>)}: the sum of the vectors that are not null, element by element, as
 * {@code ARRAY<DOUBLE>}; null over none.
 */
public final class VectorSums extends AggregateFunction<ArrayData, VectorSums.State> {
    private static final long serialVersionUID = 1L;

    /** The sums so far; null before the first vector. */
    public static final class State {
        public double[] sums;
    }

    @Override
    public State createAccumulator() {
        return new State();
    }

    public void accumulate(State state, ArrayData vector) {
        if (vector == null) {
            return;
        }
        float[] floats = vector.toFloatArray();
        if (state.sums == null) {
            state.sums = new double[floats.length];
        }
        for (int i = 0; i < floats.length; i++) {
            state.sums[i] += floats[i];
        }
    }

    @Override
    public ArrayData getValue(State state) {
        // What was given out must not change.
        return state.sums == null ? null : new GenericArrayData(state.sums.clone());
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        return TypeInference.newBuilder()
                .inputTypeStrategy(
                        InputTypeStrategies.sequence(
                                InternalArgument.of("a vector", LogicalTypeRoot.ARRAY)))
                .accumulatorTypeStrategy(
                        call ->
                                Optional.of(
                                        DataTypes.STRUCTURED(
                                                State.class,
                                                DataTypes.FIELD(
                                                        "sums",
                                                        DataTypes.ARRAY(DataTypes.DOUBLE().notNull())
                                                                .bridgedTo(double[].class)))))
                .outputTypeStrategy(
                        call ->
                                Optional.of(
                                        DataTypeUtils.toInternalDataType(
                                                DataTypes.ARRAY(DataTypes.DOUBLE()))))
                .build();
    }
}
