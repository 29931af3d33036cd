"""Where this stack's services answer, as its supervisor wrote it down.

``<home>/endpoints.json`` holds one entry per running part: ``{"spark": {"url": …, "pid": …,
"started": …}}``. It is written atomically by the supervisor and readable by the owner alone, for
a URL may carry a token.
"""

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import psutil

from millrace.errors import EngineUnavailable
from resources.configuration.secret import revealed
from resources.kafka.brokers import Brokers
from resources.settings import Settings, StoreAccess

FILE_NAME = "endpoints.json"
_STATE_NAME = "state.json"

RESTART_WAIT_S = 30.0
"""How long a part that is being started again is waited for; Spark needs ten seconds."""
_POLL_S = 0.2


def spark_remote(settings: Settings) -> str:
    """Return the Spark Connect URL: ``spark.remote`` with its token, else this stack's own server.

    A server of ours that died, and that its supervisor is starting again, is waited for a while.

    The URL may carry a token: not for logs.

    Raises:
        EngineUnavailable: none is set and the stack's server does not run.
        SetupError: the token cannot be read.
    """
    if settings.spark_remote is None:
        _wait_for_restart(settings, "spark")
        return _endpoint(settings, "spark")
    if settings.spark_token is None:
        return settings.spark_remote
    before = settings.spark_remote.rstrip("/;")
    parameters = ";" if "/;" in settings.spark_remote else "/;"
    return f"{before}{parameters}token={settings.spark_token.reveal()}"


def dagster_url(settings: Settings) -> str:
    """Return the URL of this stack's Dagster webserver, without a trailing slash.

    Raises:
        EngineUnavailable: it does not run.
    """
    return _endpoint(settings, "dagster")


def kafka_bootstrap(settings: Settings) -> Brokers:
    """Return Kafka's ``host:port`` list: ``kafka.servers``, else this stack's own broker.

    The properties of the settings go with the former; the stack's own broker asks for none.

    Raises:
        EngineUnavailable: none is set and the stack's broker does not run.
    """
    if settings.kafka is not None:
        return Brokers(settings.kafka, settings.kafka_properties)
    return Brokers(_endpoint(settings, "kafka"))


def flink_url(settings: Settings) -> str:
    """Return the URL of Flink's REST API, without a trailing slash: ``MILLRACE_FLINK_URL`` or ours.

    Raises:
        EngineUnavailable: none is set and the stack's JobManager does not run.
    """
    return (settings.flink_url or _endpoint(settings, "flink")).rstrip("/")


def store_url(settings: Settings) -> str:
    """Return the online store's URL (``redis://``, ``rediss://``, ``unix://``), ours or the user's.

    The URL carries what the user's store asks for, the password too: not for logs.

    Raises:
        EngineUnavailable: ``store.url`` is not set and the stack's store does not run.
        SetupError: the password cannot be read.
    """
    if settings.store_url is None:
        return _endpoint(settings, "store")
    return _with_access(settings.store_url, settings.store)


def _with_access(url: str, access: StoreAccess) -> str:
    """Return a store's URL with what it asks for, as redis-py reads it: user, password, files."""
    parts = urlsplit(url)
    user, has_user, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if access.username is not None:
        name = quote(revealed(access.username), safe="")
    if access.password is not None:
        password = quote(access.password.reveal(), safe="")
    files = {
        "ssl_ca_certs": access.ca_file,
        "ssl_certfile": access.cert_file,
        "ssl_keyfile": access.key_file,
    }
    is_tls = parts.scheme == "rediss"
    added = [(option, str(path)) for option, path in files.items() if path is not None and is_tls]
    if access.username is access.password is None and not added:
        return url
    netloc = f"{name}:{password}@{place}" if has_user or name or password else place
    query = "&".join(filter(None, (parts.query, urlencode(added))))
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def server_url(settings: Settings) -> str:
    """Return the URL of this stack's online API, without a trailing slash.

    Raises:
        EngineUnavailable: it does not run.
    """
    return _endpoint(settings, "server")


def is_running(settings: Settings, part: str) -> bool:
    """Whether a part of this stack was ready and its first process lives."""
    entry = _read(settings.home / FILE_NAME).get(part)
    return entry is not None and start_mark(entry["pid"]) == entry["started"]


def _wait_for_restart(settings: Settings, part: str) -> None:
    deadline = time.monotonic() + RESTART_WAIT_S
    while not is_running(settings, part) and _is_supervised(settings, part):
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_S)


def _is_supervised(settings: Settings, part: str) -> bool:
    """Whether a supervisor lives that keeps the part running, or brings it up at this moment."""
    state = _read(settings.home / _STATE_NAME)
    supervisor, record = state.get("supervisor"), state.get("parts", {}).get(part)
    if supervisor is None or record is None or record["order"] is None:
        return False
    return record["state"] in {"starting", "running"} and (
        start_mark(supervisor["pid"]) == supervisor["mark"]
    )


def _endpoint(settings: Settings, part: str) -> str:
    path = settings.home / FILE_NAME
    entry = _read(path).get(part)
    if entry is None or start_mark(entry["pid"]) != entry["started"]:
        raise EngineUnavailable(
            f"{part} of the local stack does not run",
            where=str(settings.home),
            fix="its supervisor is starting it; run this again in a moment"
            if _is_supervised(settings, part)
            else f"millrace up {part}",
        )
    return str(entry["url"])


def _read(path: Path) -> dict[str, Any]:
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return entries


def start_mark(pid: int) -> str | None:
    """Return a mark of the process that has this pid now; None if none lives.

    Pids are used again, a pair of pid and mark is not. A zombie has ended, so it has none.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if psutil.LINUX:
            return f"{_boot_id()}:{_start_ticks(pid)}"
        return f"{process.create_time():.2f}"
    except (psutil.Error, OSError, ValueError):
        return None


def _start_ticks(pid: int) -> int:
    # Not psutil's create_time: that adds the boot time, which moves when the clock is set.
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(text.rpartition(")")[2].split()[19])


@lru_cache(maxsize=1)
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
