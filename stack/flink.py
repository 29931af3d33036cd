"""The Flink part: one JobManager, and a TaskManager for each eight slots that its jobs need.

Both are run by ``java`` directly: the wheel's scripts start a JVM to compute the memory of
the next one, which takes longer than the JVM itself. So what they would compute is written here.
"""

import json
import shutil
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml

from resources.flink.distribution import connector_jars, flink_home
from resources.flink.slots import MOST_WORKERS, SLOTS_A_WORKER, wanted_workers
from resources.jvm.jars import read_lock
from resources.jvm.java import find_java
from resources.settings import Settings
from resources.store.opening import shown_url
from stack.files import StackFiles, write_if_new
from stack.jars import fetch
from stack.parts import READY, Context, Launch, Part, Program, Readiness
from stack.ports import is_answering

_EXPORTED = ("java.rmi/sun.rmi.registry", "java.security.jgss/sun.security.krb5")
_OPENED = (
    "java.base/java.lang",
    "java.base/java.net",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.base/java.lang.reflect",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
)
"""What Flink reflects into, as its own configuration lists it."""

_LOOK_TIMEOUT_S = 2.0

_JM_HEAP_MB, _JM_DIRECT_MB = 448, 64
_TM_FRAMEWORK_MB, _TM_TASK_MB = 128, 896
_TM_NETWORK_MB, _TM_FRAMEWORK_DIRECT_MB = 64, 128
_TM_MANAGED_MB = 256
# Each submitted job loads the planner's code anew until the last one's is collected.
_METASPACE_MB = 256

_LOGGING = """\
monitorInterval = 0
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c{1} %m%n
logger.jobs.name = org.apache.flink.runtime.executiongraph.ExecutionGraph
logger.jobs.level = INFO
logger.entry.name = org.apache.flink.runtime.entrypoint.ClusterEntrypoint
logger.entry.level = INFO
logger.workers.name = org.apache.flink.runtime.resourcemanager
logger.workers.level = INFO
"""


def flink_part() -> Part:
    """Return the record of the Flink part."""
    return Part(
        name="flink",
        describe=_describe,
        variables=("MILLRACE_HOME", "JAVA_HOME"),
        external=_external,
        start_timeout_s=180,
    )


def _external(settings: Settings) -> str | None:
    return settings.flink_url and shown_url(settings.flink_url)


def _describe(context: Context) -> Launch:
    settings = context.settings
    folder = settings.home / "flink"
    fetch(settings.cache, read_lock("flink"))
    distribution = flink_home(settings.cache)
    jars = (*sorted((distribution / "lib").glob("*.jar")), *connector_jars(settings.cache))
    ports = {purpose: context.port(purpose) for purpose in ("rest", "rpc", "blob", "task", "data")}
    worker = f"millrace-{zlib.crc32(bytes(folder)):08x}"
    further = [_Worker.of(context, worker, number) for number in range(2, MOST_WORKERS + 1)]
    write_if_new(folder / "conf" / "log4j.properties", _LOGGING)
    write_if_new(
        folder / "conf" / "config.yaml", yaml.safe_dump(_configuration(folder, ports, worker))
    )
    java = str(find_java(context.environ).executable)
    env = {
        **{k: v for k, v in context.environ.items() if not k.startswith("FLINK_")},
        "FLINK_CONF_DIR": str(folder / "conf"),
        "FLINK_LIB_DIR": str(distribution / "lib"),
        "FLINK_PLUGINS_DIR": str(distribution / "plugins"),
    }

    def program(
        name: str,
        main: str,
        options: tuple[str, ...],
        properties: tuple[str, ...] = (),
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Program:
        scratch = folder / "tmp" / name
        log = StackFiles(settings.home).log_of("flink", name)
        argv = (
            *(java, *options, *_java_options(folder)),
            *("-cp", ":".join(map(str, jars)), main),
            *("--configDir", str(folder / "conf"), "-D", f"io.tmp.dirs={scratch}"),
            # Not by -Dlog.file: RocksDB would write its own logs beside that file, named by the
            # whole path of a database, which is too long where state is merged for fewer tasks.
            *("-D", f"web.log.path={log}", "-D", f"taskmanager.log.path={log}"),
            *(part for one in properties for part in ("-D", one)),
        )
        return Program(
            name, argv, env, folder, prepare=lambda: _clear(scratch), is_wanted=is_wanted
        )

    def taskmanager(
        name: str, properties: tuple[str, ...] = (), is_wanted: Callable[[], bool] = lambda: True
    ) -> Program:
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        return program(name, main, _taskmanager_options(), properties, is_wanted)

    def looked() -> Readiness:
        wanted = further[: wanted_workers(settings.home) - 1]
        data_ports = {worker: ports["data"]} | {one.name: one.data_port for one in wanted}
        return look(url, data_ports, known=[worker, *(one.name for one in further)])

    url = f"http://127.0.0.1:{ports['rest']}"
    return Launch(
        programs=(
            program(
                "jobmanager",
                "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                _jobmanager_options(),
            ),
            taskmanager("taskmanager"),
            *(
                taskmanager(
                    f"taskmanager-{one.number}", one.properties, partial(one.is_wanted, settings)
                )
                for one in further
            ),
        ),
        url=url,
        probe=looked,
    )


@dataclass(frozen=True)
class _Worker:
    """A TaskManager beside the first, with the settings that are its own."""

    number: int
    name: str
    task_port: int
    data_port: int

    @classmethod
    def of(cls, context: Context, first: str, number: int) -> "_Worker":
        ports = (context.port(f"{purpose}-{number}") for purpose in ("task", "data"))
        return cls(number, f"{first}-{number}", *ports)

    @property
    def properties(self) -> tuple[str, ...]:
        return (
            f"taskmanager.resource-id={self.name}",
            f"taskmanager.rpc.port={self.task_port}",
            f"taskmanager.data.port={self.data_port}",
        )

    def is_wanted(self, settings: Settings) -> bool:
        return wanted_workers(settings.home) >= self.number


def _clear(scratch: Path) -> None:
    """Drop the unpacked jars and buffers that a killed process could not."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)


def _java_options(folder: Path) -> tuple[str, ...]:
    logging = folder / "conf" / "log4j.properties"
    return (
        f"-XX:MaxMetaspaceSize={_METASPACE_MB}m",
        # A process that ran out of memory half works; a dead one is started again.
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-XX:+IgnoreUnrecognizedVMOptions",
        *(f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTED),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        "-Duser.timezone=UTC",
        f"-Dlog4j.configurationFile={logging}",
        f"-Dlog4j.configuration=file:{logging}",
    )


def _jobmanager_options() -> tuple[str, ...]:
    return (
        "-Xms128m",
        f"-Xmx{_JM_HEAP_MB}m",
        "-XX:+UseSerialGC",
        # It plans a job now and then: optimizing its code costs more than it ever saves.
        "-XX:TieredStopAtLevel=1",
    )


def _taskmanager_options() -> tuple[str, ...]:
    return (
        "-Xms256m",
        f"-Xmx{_TM_FRAMEWORK_MB + _TM_TASK_MB}m",
        f"-XX:MaxDirectMemorySize={_TM_NETWORK_MB + _TM_FRAMEWORK_DIRECT_MB}m",
        # State lies on the heap: a collector that stops for all of it would show in the latency.
        "-XX:+UseG1GC",
    )


def _configuration(folder: Path, ports: Mapping[str, int], worker: str) -> dict[str, Any]:
    return {
        **_addresses(ports, worker),
        **_memory(),
        **_jobs(folder),
        # What is lost is seen within seconds; ten of them forgive a pause of a busy machine.
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10000,
        "heartbeat.rpc-failure-threshold": 2,
        "cluster.registration.error-delay": 1000,
        # A TaskManager that was just registering when the JobManager died goes on asking the dead
        # one, which no successor answers. One that ends itself is started anew; after the time
        # that counts as a young death, since waiting for a slow JobManager is none.
        "taskmanager.registration.timeout": "30 s",
        "web.upload.dir": str(folder / "jars"),
        "security.delegation.tokens.enabled": False,
    }


def _addresses(ports: Mapping[str, int], worker: str) -> dict[str, Any]:
    # Ports of this stack's own: a TaskManager of another that finds a JobManager at the default
    # port joins it, and is given tasks whose jars it does not have.
    local = "127.0.0.1"
    return {
        "jobmanager.rpc.address": local,
        "jobmanager.bind-host": local,
        "jobmanager.rpc.port": ports["rpc"],
        "blob.server.port": str(ports["blob"]),
        "rest.address": local,
        "rest.bind-address": local,
        "rest.port": ports["rest"],
        "rest.bind-port": str(ports["rest"]),
        "taskmanager.host": local,
        "taskmanager.bind-host": local,
        "taskmanager.rpc.port": str(ports["task"]),
        "taskmanager.data.port": ports["data"],
        "taskmanager.resource-id": worker,
    }


def _memory() -> dict[str, Any]:
    return {
        "jobmanager.memory.heap.size": f"{_JM_HEAP_MB}m",
        "jobmanager.memory.off-heap.size": f"{_JM_DIRECT_MB}m",
        "jobmanager.memory.jvm-metaspace.size": f"{_METASPACE_MB}m",
        "taskmanager.numberOfTaskSlots": SLOTS_A_WORKER,
        "taskmanager.cpu.cores": SLOTS_A_WORKER,
        "taskmanager.memory.framework.heap.size": f"{_TM_FRAMEWORK_MB}m",
        "taskmanager.memory.task.heap.size": f"{_TM_TASK_MB}m",
        "taskmanager.memory.framework.off-heap.size": f"{_TM_FRAMEWORK_DIRECT_MB}m",
        "taskmanager.memory.task.off-heap.size": "0m",
        "taskmanager.memory.network.min": f"{_TM_NETWORK_MB}m",
        "taskmanager.memory.network.max": f"{_TM_NETWORK_MB}m",
        # Taken only by jobs that keep their state in RocksDB.
        "taskmanager.memory.managed.size": f"{_TM_MANAGED_MB}m",
        "taskmanager.memory.jvm-metaspace.size": f"{_METASPACE_MB}m",
        "taskmanager.memory.jvm-overhead.min": "192m",
        "taskmanager.memory.jvm-overhead.max": "192m",
    }


def _jobs(folder: Path) -> dict[str, Any]:
    """What holds for every job that says nothing else when it is submitted."""
    return {
        "parallelism.default": 1,
        "state.backend.type": "hashmap",
        "execution.buffer-timeout.interval": "5 ms",
        "execution.checkpointing.interval": "10 s",
        "execution.checkpointing.timeout": "2 min",
        "execution.checkpointing.dir": f"file://{folder / 'checkpoints'}",
        "execution.checkpointing.savepoint-dir": f"file://{folder / 'savepoints'}",
        "execution.checkpointing.num-retained": 3,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # A full disk stops checkpoints, not the job; their age shows it.
        "execution.checkpointing.tolerable-failed-checkpoints": 1000,
        # Bounded, so that a job nobody can help reaches FAILED, where it is seen: ten tries in
        # about a minute. A job that ran for half a minute starts over with all ten.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.backoff-multiplier": 2.0,
        "restart-strategy.exponential-delay.reset-backoff-threshold": "30 s",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": 10,
    }


def look(url: str, data_ports: Mapping[str, int], known: Collection[str] = ()) -> Readiness:
    """Ask the JobManager at ``url`` whether its TaskManagers are there.

    It goes on listing one that was killed for some seconds, so that one's port is asked as well.

    Args:
        url: of its REST API.
        data_ports: the TaskManagers that are wanted, and where each listens.
        known: all that may join it, wanted or not; those of ``data_ports`` at least.
    """
    try:
        with urllib.request.urlopen(f"{url}/taskmanagers", timeout=_LOOK_TIMEOUT_S) as answer:  # noqa: S310
            workers = [str(one["id"]) for one in json.load(answer)["taskmanagers"]]
    except (urllib.error.URLError, HTTPException, OSError, ValueError, KeyError):
        return Readiness(is_ready=False, detail="waiting for the JobManager")
    strangers = [one for one in workers if one not in known and one not in data_ports]
    if strangers:
        detail = f"a TaskManager that is not ours joined it: {strangers[0]}"
        return Readiness(is_ready=False, detail=detail, is_broken=True)
    if all(name in workers and is_answering(port) for name, port in data_ports.items()):
        return READY
    return Readiness(is_ready=False, detail="waiting for the TaskManager")
