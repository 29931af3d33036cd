"""The door to Spark: one Connect session per process, and nothing that only a classic session has.

Written against the part of the DataFrame API that Connect and classic sessions share, so that a
cluster of the user's (``MILLRACE_SPARK_REMOTE``) runs the same code.
"""

import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.errors import EngineError, EngineRejected, EngineUnavailable
from resources.configuration.secret import Options
from resources.endpoints import spark_remote
from resources.lake.options import hadoop_options
from resources.settings import Settings
from resources.spark.tile_bytes import register_encoder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SESSION_CONF = {
    # Every timestamp of the lake is an instant; a session zone other than UTC would move days.
    "spark.sql.session.timeZone": "UTC",
    # Cells that do not convert are judged one by one (dead letters); a job must never die on one.
    "spark.sql.ansi.enabled": "true",
    # Parquet timestamps without a zone read as TIMESTAMP_NTZ lift a Delta table's protocol.
    "spark.sql.parquet.inferTimestampNTZ.enabled": "false",
    # Spark's own INT96 is read as nanoseconds elsewhere, which end in 2262.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # One calendar, the proleptic Gregorian, before 1582 as well: nothing is moved by ten days.
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "200000",
    "spark.sql.adaptive.coalescePartitions.enabled": "true",
}


_ROWS_PER_TASK = 750_000
"""Rows a kernel task holds at once; at some 200 bytes of arrays a row, well under 1 GB."""


def kernel_partitions(rows: int) -> int:
    """Return how many tasks to spread ``rows`` over so that each fits a worker's memory.

    An even number, for a small machine's two cores to end together. A single entity is never
    split, so the largest one sets the floor.
    """
    return max(2, 2 * -(-rows // (2 * _ROWS_PER_TASK)))


@lru_cache(maxsize=4)
def _session(remote: str, lake: Options, *, is_ours: bool) -> "SparkSession":
    # Nothing here goes through pandas, so which one is installed is no news to a user.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.client.retries import DefaultPolicy

    try:
        session = SparkSession.builder.remote(remote).getOrCreate()
        # A session's settings reach Hadoop's, also on a cluster that somebody else started.
        for key, value in (_SESSION_CONF | hadoop_options(lake.reveal())).items():
            session.conf.set(key, value)
        # The default waits ten minutes for a server that died; a supervisor needs seconds.
        session.client.set_retry_policies([DefaultPolicy(max_retries=6, max_backoff=10_000)])
        if not is_ours:
            _ship_our_code(session)
        register_encoder(session)
    except PySparkException as error:
        where = remote.split(";", maxsplit=1)[0]
        if not is_ours and "UNAUTHENTICATED" in str(error):
            raise EngineRejected(
                f"Spark refuses to be spoken to: {telling_part(error)}",
                where=where,
                fix="give its token: spark.token, or MILLRACE_SPARK_TOKEN",
            ) from error
        raise EngineUnavailable(
            f"Spark does not answer: {telling_part(error)}",
            where=where,
            fix="run it again if the stack's supervisor is starting it (`millrace status`); else "
            "`millrace up spark`",
        ) from error
    return session


def connect(settings: Settings) -> "SparkSession":
    """Return this process's session with the stack's Spark.

    The session is shared by all callers of the process and lives as long as it does.

    Raises:
        EngineUnavailable: no server is known, or it does not answer.
    """
    remote, is_ours = spark_remote(settings), settings.spark_remote is None
    session = _session(remote, settings.lake_options, is_ours=is_ours)
    if session.is_stopped:
        _session.cache_clear()
        session = _session(remote, settings.lake_options, is_ours=is_ours)
    return session


_SHIPPED = ("millrace", "resources", "offline", "checks")
"""What runs on executors lives in these: raw files are read there, tiles encoded, features and spines
joined, large tables profiled."""


def _ship_our_code(session: "SparkSession") -> None:
    """Send our packages to a cluster of the user's, whose workers then need only numpy and Arrow.

    The local server's workers run in this very environment and need nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "millrace_code.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            for package in _SHIPPED:
                root = Path(str(files(package)))
                for module in sorted(root.rglob("*.py")):
                    packed.write(module, Path(package) / module.relative_to(root))
        session.addArtifacts(str(archive), pyfile=True)


def telling_part(error: Exception, limit: int = 400) -> str:
    """Return the telling part of an engine's message, cut to ``limit``.

    That is its first line, or what gRPC has further down as the details.
    """
    text = str(error).strip()
    details = re.search(r'^\s*details = "(.+)"$', text, re.MULTILINE)
    if details:
        return details[1][:limit]
    return (text.splitlines() or [type(error).__name__])[0][:limit]


_GONE = (
    "UNAVAILABLE",
    "UNAUTHENTICATED",
    "SESSION_NOT_FOUND",
    "SESSION_CLOSED",
    "RETRIES_EXCEEDED",
)
"""What a client reads from a server that died, or that has been started anew since."""


@contextmanager
def engine_errors(where: str) -> Iterator[None]:
    """Turn Spark's own exceptions into ours at this seam, keeping the cause.

    Raises:
        EngineUnavailable: the server died or was started anew; the next ``connect`` finds it.
        EngineError: Spark failed at what it was told.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        if any(mark in str(error) for mark in _GONE):
            forget_session()
            raise EngineUnavailable(
                "Spark died in the middle", where=where, fix="it is started again; run it again"
            ) from error
        raise EngineError(
            telling_part(error), where=where, fix="`millrace logs spark` has the whole trace"
        ) from error


def forget_session() -> None:
    """End this process's session, whether or not its server still lives."""
    from pyspark.sql import SparkSession

    _session.cache_clear()
    session = SparkSession.getActiveSession()
    if session is not None:
        # Nobody answers any more: one farewell is enough.
        session.client.set_retry_policies([])
        session.stop()
