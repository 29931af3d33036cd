"""A Kafka that asks for SASL over TLS, and a TLS end in front of a store, of a test's own."""

import asyncio
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resources.configuration.secret import Options
from resources.jvm.jars import read_lock
from resources.jvm.java import find_java
from resources.kafka.brokers import Brokers
from resources.kafka.client import is_ready
from stack.jars import fetch
from tests.support.ports import free_port

CERTIFICATE = Path(__file__).parents[1] / "certificates" / "localhost.pem"
"""Certificate and key of every server here, and the authority that signed it."""

USER, PASSWORD = "millrace", "kafka-secret-of-the-tests"
_DEADLINE_S = 120.0


def kafka_properties(password: str = PASSWORD) -> dict[str, str]:
    """Return what lets a client in, by librdkafka's names."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": password,
        "ssl.ca.location": str(CERTIFICATE),
    }


@contextmanager
def secured_kafka(folder: Path, cache: Path) -> Iterator[str]:
    """Run a broker whose clients come over SASL_SSL with SCRAM; yields its ``host:port``."""
    folder.mkdir(parents=True)
    port, inner, controller = free_port(), free_port(), free_port()
    keystore = folder / "broker.pem"
    shutil.copy(CERTIFICATE, keystore)
    listeners = {"SASL_SSL": port, "INNER": inner}
    addresses = [f"{name}://127.0.0.1:{number}" for name, number in listeners.items()]
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": ",".join([*addresses, f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(addresses),
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INNER",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": keystore,
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": 2,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 2,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 33_554_432,
    }
    configuration = folder / "server.properties"
    configuration.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    jars = fetch(cache, read_lock("kafka"))
    options = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    java = (str(find_java().executable), *options, "-cp", ":".join(map(str, jars)))
    user = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    tool = ("kafka.tools.StorageTool", "format", "--standalone", "-t", "a" * 22)
    subprocess.run(
        [*java, *tool, "-c", str(configuration), "--add-scram", user],
        check=True,
        capture_output=True,
        timeout=_DEADLINE_S,
    )
    with (folder / "log").open("wb") as log:
        broker = subprocess.Popen(
            [*java, "kafka.Kafka", str(configuration)], cwd=folder, stdout=log, stderr=log
        )
    try:
        servers = Brokers(f"127.0.0.1:{port}", Options.of(kafka_properties(), "kafka.properties"))
        deadline = time.monotonic() + _DEADLINE_S
        while not is_ready(servers):
            assert broker.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
        yield str(servers)
    finally:
        # Nobody reads what it held, and its own stop may take half a minute.
        broker.kill()
        broker.wait()


@contextmanager
def tls_front(target_port: int) -> Iterator[int]:
    """Take TLS connections and hand their bytes on to a port of this machine; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    loop, port = asyncio.new_event_loop(), free_port()
    started = threading.Event()

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(hand_on(reader, back_writer), hand_on(back_reader, writer))

    async def serve() -> None:
        server = await asyncio.start_server(take, "127.0.0.1", port, ssl=context)
        started.set()
        async with server:
            await server.serve_forever()

    def run() -> None:
        asyncio.set_event_loop(loop)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    task = loop.create_task(serve())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
