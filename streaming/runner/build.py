"""The jar of the stream jobs: a runner of SQL scripts and the functions that SQL lacks."""

from pathlib import Path

from resources.flink.distribution import connector_jars, ecj_jar, flink_lib, java_executable
from resources.jvm.source_jar import JavaSources, java_jar
from resources.settings import Settings

ENTRY_CLASS = "millrace.flink.SqlRunner"
SOURCES = JavaSources(Path(__file__).parent / "src", "millrace-flink-runner.jar", ENTRY_CLASS)


def ensure_runner_jar(settings: Settings) -> Path:
    """Return the jar, built now unless the cache has it.

    Raises:
        SetupError: Flink, the compiler or a Java is not installed, or the build failed.
    """
    cache = settings.cache
    libraries = [*sorted(flink_lib(cache).glob("*.jar")), *connector_jars(cache)]
    return java_jar(SOURCES, cache, libraries, ecj_jar(cache), java_executable())
