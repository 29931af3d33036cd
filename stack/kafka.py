"""The Kafka part: one broker that is its own controller, in one small JVM.

Its port never moves: Flink jobs carry it in their SQL. Where somebody else took it, the part fails
and says so instead of coming back where nobody looks.
"""

import base64
import re
import subprocess
import uuid
from pathlib import Path

from millrace.errors import SetupError
from resources.jvm.jars import read_lock
from resources.jvm.java import find_java
from resources.kafka.client import is_ready
from resources.settings import Settings
from stack.files import write_if_new
from stack.jars import fetch
from stack.parts import READY, Context, Launch, Part, Program, Readiness
from stack.ports import is_answering

_FORMAT_TIMEOUT_S = 120
_HEAP_MB = 384

_LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = INFO
"""


def kafka_part() -> Part:
    """Return the record of the Kafka part."""
    return Part(
        name="kafka",
        describe=_describe,
        variables=("MILLRACE_HOME", "JAVA_HOME"),
        external=_external,
        start_timeout_s=120,
        stop_timeout_s=20,
    )


def _external(settings: Settings) -> str | None:
    return settings.kafka


def _describe(context: Context) -> Launch:
    folder = context.settings.home / "kafka"
    port, controller = context.fixed_port("broker"), context.fixed_port("controller")
    jars = fetch(context.settings.cache, read_lock("kafka"))
    java = find_java(context.environ).executable
    folder.mkdir(parents=True, exist_ok=True)
    write_if_new(folder / "log4j2.properties", _LOGGING)
    configuration = folder / "server.properties"
    write_if_new(configuration, _properties(folder, port, controller))
    command = (str(java), *_java_options(folder), "-cp", ":".join(map(str, jars)))
    broker = Program(
        name="broker",
        argv=(*command, "kafka.Kafka", str(configuration)),
        env=context.environ,
        cwd=folder,
        prepare=lambda: prepare_storage(folder, command),
    )
    bootstrap = f"127.0.0.1:{port}"
    return Launch(programs=(broker,), url=bootstrap, probe=lambda: _look(port, bootstrap))


def _look(port: int, bootstrap: str) -> Readiness:
    # The client is made only when somebody listens: it takes its time over a closed port.
    if is_answering(port) and is_ready(bootstrap):
        return READY
    return Readiness(is_ready=False, detail=f"waiting for {bootstrap}")


def _java_options(folder: Path) -> tuple[str, ...]:
    return (
        "-Xms256m",
        f"-Xmx{_HEAP_MB}m",
        "-XX:MaxMetaspaceSize=128m",
        "-XX:+UseSerialGC",
        # Records pass through as they are: optimizing the code around them costs more than it saves.
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
    )


def _properties(folder: Path, port: int, controller: int) -> str:
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "log.dirs": _data(folder),
        "auto.create.topics.enable": "false",
        # The broker's clock is the ingest time, which nobody who sends can choose.
        "log.message.timestamp.type": "LogAppendTime",
        "num.partitions": 4,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A broker that was killed is let back in when its session ran out.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        # The default would be a third of this heap.
        "log.cleaner.dedupe.buffer.size": 33_554_432,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _data(folder: Path) -> Path:
    return folder / "data"


def prepare_storage(folder: Path, command: tuple[str, ...]) -> None:
    """Format the log folder before the first start; once done, only compare the cluster's id.

    Args:
        folder: the part's folder, with ``server.properties``.
        command: ``java`` with its options and class path.

    Raises:
        SetupError: the log folder belongs to another cluster, or cannot be formatted.
    """
    identity, done = folder / "cluster_id", folder / ".formatted"
    if not identity.exists():
        write_if_new(identity, base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
    ours, theirs = identity.read_text(encoding="utf-8"), _cluster_of(_data(folder))
    if theirs not in {None, ours}:
        raise SetupError(
            f"the log folder belongs to the Kafka cluster {theirs}, not to this home's, {ours}",
            where=str(_data(folder)),
            fix=f"to keep its records, write {theirs} into {identity}; "
            f"to begin with an empty broker, remove {folder}",
        )
    if done.exists() and theirs is not None:
        return
    tool = ("kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted")
    # In one word: one id in 64 begins with a dash, and would be taken for an option.
    arguments = (f"--cluster-id={ours}", "--config", str(folder / "server.properties"))
    try:
        subprocess.run(
            [*command, *tool, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
        )
    except subprocess.SubprocessError as error:
        shown = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise SetupError(
            f"Kafka's log folder cannot be formatted: {shown[-1] if shown else error}",
            where=str(_data(folder)),
            fix="is there space, and may it be written?",
        ) from error
    done.touch()


def _cluster_of(data: Path) -> str | None:
    try:
        text = (data / "meta.properties").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    found = re.search(r"^cluster\.id=(\S+)$", text, re.MULTILINE)
    return found[1] if found else None
