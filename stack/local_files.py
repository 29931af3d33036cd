"""The jar that Spark writes local files with: Hadoop's own costs two processes for each of them."""

from pathlib import Path

from resources.jvm.jars import read_lock
from resources.jvm.java import Java
from resources.jvm.source_jar import JavaSources, java_jar
from stack.jars import fetch

CLASS_NAME = "millrace.spark.LocalFiles"
SOURCES = JavaSources(Path(__file__).parent / "java", "millrace-local-files.jar")


def local_files_jar(cache: Path, spark_jars: Path, java: Java) -> Path:
    """Return the jar, built now unless the cache has it.

    Args:
        cache: where downloads and jars are kept.
        spark_jars: the folder of Spark's jars, Hadoop's client among them.
        java: what runs the compiler.

    Raises:
        SetupError: the compiler cannot be had, or the sources do not compile.
    """
    (ecj,) = fetch(cache, read_lock("build"))
    hadoop = sorted(spark_jars.glob("hadoop-client-api-*.jar"))
    return java_jar(SOURCES, cache, hadoop, ecj, java.executable)
