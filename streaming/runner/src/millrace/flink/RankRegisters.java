package millrace.flink;

import java.io.ByteArrayOutputStream;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/**
 * {@code rank_registers(value, precision)}: the registers by which {@code approx_distinct} estimates;
 * {@code millrace.aggregates.registers} says what they are.
 */
public final class RankRegisters extends Encoding {
    private static final long serialVersionUID = 1L;
    private static final int ENTRY_BYTES = 3;
    private static final int RANK_BITS = 6;

    public RankRegisters() {
        super(
                false,
                true,
                LogicalTypeRoot.BOOLEAN,
                LogicalTypeRoot.INTEGER,
                LogicalTypeRoot.BIGINT,
                LogicalTypeRoot.DOUBLE,
                LogicalTypeRoot.DECIMAL,
                LogicalTypeRoot.CHAR,
                LogicalTypeRoot.VARCHAR,
                LogicalTypeRoot.VARBINARY,
                LogicalTypeRoot.DATE);
    }

    @Override
    protected Kept decoded(byte[] bytes, Object value, int precision) {
        Registers registers = new Registers(precision);
        if (bytes != null && bytes.length == registers.ranks.length) {
            for (int register = 0; register < bytes.length; register++) {
                registers.raise(register, bytes[register]);
            }
        } else if (bytes != null) {
            for (int at = 0; at < bytes.length; at += ENTRY_BYTES) {
                int entry = (bytes[at] & 0xff) << 16 | (bytes[at + 1] & 0xff) << 8 | bytes[at + 2] & 0xff;
                registers.raise(entry >> RANK_BITS, (byte) (entry & (1 << RANK_BITS) - 1));
            }
        }
        return registers;
    }

    /** The hash of a value's bytes: {@code hash_of} there. */
    static long hash(byte[] bytes) {
        long found = mixed(bytes.length);
        for (int at = 0; at < bytes.length; at += Long.BYTES) {
            long word = 0;
            for (int i = at; i < at + Long.BYTES; i++) {
                word = word << 8 | (i < bytes.length ? bytes[i] & 0xff : 0);
            }
            found = mixed(found ^ word);
        }
        return found;
    }

    private static long mixed(long word) {
        word += 0x9E3779B97F4A7C15L;
        word = (word ^ word >>> 30) * 0xBF58476D1CE4E5B9L;
        word = (word ^ word >>> 27) * 0x94D049BB133111EBL;
        return word ^ word >>> 31;
    }

    private static final class Registers implements Kept {
        private final byte[] ranks;
        private final int free;
        private int held;

        Registers(int precision) {
            this.ranks = new byte[1 << precision];
            this.free = Long.SIZE - precision;
        }

        @Override
        public boolean add(Object value) {
            long found = hash(bytesOf(value));
            long rest = found & (1L << free) - 1;
            return raise((int) (found >>> free), (byte) (Long.numberOfLeadingZeros(rest) - Long.SIZE + free + 1));
        }

        boolean raise(int register, byte rank) {
            if (rank <= ranks[register]) {
                return false;
            }
            held += ranks[register] == 0 ? 1 : 0;
            ranks[register] = rank;
            return true;
        }

        @Override
        public byte[] encoded() {
            if (ENTRY_BYTES * held >= ranks.length) {
                return ranks.clone();
            }
            ByteArrayOutputStream out = new ByteArrayOutputStream(ENTRY_BYTES * held);
            for (int register = 0; register < ranks.length; register++) {
                if (ranks[register] != 0) {
                    int entry = register << RANK_BITS | ranks[register];
                    out.write(entry >> 16);
                    out.write(entry >> 8);
                    out.write(entry);
                }
            }
            return out.toByteArray();
        }
    }
}
