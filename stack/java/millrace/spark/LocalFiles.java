package millrace.spark;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.attribute.PosixFilePermissions;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.permission.FsPermission;

/**
 * Hadoop's local file system without its two costs per file.
 *
 * <p>Where Hadoop's native library is missing, as it is from pyspark, each new file and directory is
 * given its permissions by a process {@code chmod}; here the system call is made. And a hidden
 * {@code .crc} is written beside each file, a second file with a second {@code chmod}; the lake's
 * other writers write none, and here none is written either. Those that exist are still checked.
 *
 * <p>Delta's log goes through Hadoop's other interface, {@code FileContext}, and stays as it was: it
 * is a few files for each commit.
 */
public final class LocalFiles extends LocalFileSystem {
    private static final int OWNER_GROUP_OTHERS = 9;

    /** Called by Hadoop, which finds the class by the setting {@code fs.file.impl}. */
    public LocalFiles() {
        super(new WithoutProcesses());
        setWriteChecksum(false);
    }

    private static final class WithoutProcesses extends RawLocalFileSystem {
        @Override
        public void setPermission(Path path, FsPermission permission) throws IOException {
            // Without the sticky bit, the tenth letter, which Java cannot set and no table needs.
            String letters = permission.toString().substring(0, OWNER_GROUP_OTHERS);
            Files.setPosixFilePermissions(
                    pathToFile(path).toPath(), PosixFilePermissions.fromString(letters));
        }
    }
}
