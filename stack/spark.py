"""The Spark part: one warm Spark Connect server with Delta, for every client of this stack.

The JVM is started directly, not by Spark's launcher: that one asks for the module
``jdk.incubator.vector``, which the bundled Java runtime does not have, and dies.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from resources.jvm.jars import read_lock
from resources.jvm.java import find_java
from resources.settings import Settings
from stack.jars import fetch
from stack.local_files import CLASS_NAME, local_files_jar
from stack.parts import READY, Context, Launch, Part, Program, Readiness
from stack.ports import is_answering

_OPENED = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)
"""The packages Spark reflects into (its own ``JavaModuleOptions``)."""

_HEAP_MB = 2500
_LEAST_HEAP_MB = 1024
_HEAP_SHARE = 0.3
_MEGABYTE = 1 << 20


def spark_part() -> Part:
    """Return the record of the Spark part."""
    return Part(
        name="spark",
        describe=_describe,
        variables=("MILLRACE_HOME", "JAVA_HOME"),
        external=_external,
        start_timeout_s=180,
    )


def _describe(context: Context) -> Launch:
    settings, port = context.settings, context.port("connect")
    folder = settings.home / "spark"
    jars = fetch(settings.cache, read_lock("delta"))
    java = find_java(context.environ)
    home = _spark_home()
    local_files = local_files_jar(settings.cache, home / "jars", java)
    server = Program(
        name="connect",
        argv=(
            str(java.executable),
            *_java_options(folder),
            *("-cp", os.pathsep.join((str(local_files), f"{home / 'jars'}/*"))),
            "org.apache.spark.deploy.SparkSubmit",
            *("--master", f"local[{_cores()}]"),
            *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
            *("--name", "millrace"),
            *_flags(_conf(folder, port, jars)),
            "spark-internal",
        ),
        env=_environ(context, home, java.home),
        cwd=folder,
        prepare=lambda: _clear_scratch(folder),
    )
    return Launch(
        programs=(server,),
        url=f"sc://localhost:{port}",
        # By name, not address: for 127.0.0.1 the client insists on TLS as soon as there is a token.
        endpoint=f"sc://localhost:{port}/;token={context.token}",
        probe=lambda: _look(port),
    )


def _look(port: int) -> Readiness:
    if is_answering(port):
        return READY
    return Readiness(is_ready=False, detail=f"waiting for port {port}")


def _environ(context: Context, spark_home: Path, java_home: Path) -> dict[str, str]:
    inherited = {
        name: value for name, value in context.environ.items() if not name.startswith("SPARK_")
    }
    return inherited | {
        "SPARK_HOME": str(spark_home),
        "JAVA_HOME": str(java_home),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": context.token,
        # numpy's own threads would fight the executor's over the same cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _clear_scratch(folder: Path) -> None:
    """Drop what a killed server could not: shuffle files and unpacked libraries."""
    for name in ("local", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)


def _java_options(folder: Path) -> tuple[str, ...]:
    return (
        f"-Xmx{_heap_mb()}m",
        "-Xms256m",
        # On two cores the parallel collectors cost more than they save (35 against 223 s of CPU
        # for the same script); with more, they pay.
        "-XX:+UseSerialGC" if _cores() <= 2 else "-XX:+UseParallelGC",  # noqa: PLR2004
        "-XX:ReservedCodeCacheSize=256m",
        # A server that ran out of memory half works; a dead one is started again.
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-XX:+IgnoreUnrecognizedVMOptions",
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        "-Djdk.reflect.useDirectMethodHandle=false",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Dfile.encoding=UTF-8",
        "-Duser.timezone=UTC",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dderby.system.home={folder}",
    )


def _conf(folder: Path, port: int, jars: tuple[Path, ...]) -> dict[str, str]:
    return {
        "spark.jars": ",".join(map(str, jars)),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.grpc.maxInboundMessageSize": str(512 * _MEGABYTE),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        # Hadoop's own starts a `chmod` for each file and folder: a quarter of a backfill's time.
        "spark.hadoop.fs.file.impl": CLASS_NAME,
        "spark.log.level": "WARN",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(max(4, _cores())),
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
        # The default of 50 tasks for every snapshot of a small table was most of the run time.
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
        "spark.python.worker.reuse": "true",
        # Nobody looks at the UI's history; kept whole it grows the heap of a long-lived server.
        "spark.ui.retainedJobs": "50",
        "spark.ui.retainedStages": "50",
        "spark.ui.retainedTasks": "1000",
        "spark.sql.ui.retainedExecutions": "20",
    }


def _flags(conf: Mapping[str, str]) -> list[str]:
    return [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _heap_mb() -> int:
    import psutil

    fair = int(psutil.virtual_memory().total / _MEGABYTE * _HEAP_SHARE)
    return max(_LEAST_HEAP_MB, min(_HEAP_MB, fair))


def _spark_home() -> Path:
    """Find pyspark's folder without importing it, which would cost a second."""
    from importlib.util import find_spec

    from millrace.errors import SetupError

    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SetupError("pyspark is not installed", where=sys.prefix, fix="make setup")
    return Path(spec.origin).parent


def _external(settings: Settings) -> str | None:
    """Return the user's own Spark Connect URL without its token, if one is set."""
    return settings.spark_remote and settings.spark_remote.split(";", maxsplit=1)[0]
