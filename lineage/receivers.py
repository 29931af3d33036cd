"""Who is told: the setting ``lineage.receivers``, read into receivers that take one event at a time.

    console                      a line per event on standard output
    file:/path/events.jsonl      appended, on disk before the next one
    http(s)://host[/path]        POST; without a path /api/v1/lineage, as Marquez has it
    kafka://host:port/topic      keyed by run id
    none                         nothing is told, nothing is kept

Several by comma; unset is ``file:<home>/lineage/events.jsonl``.
"""

import hashlib
import json
import os
import re
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from lineage.outbox import Waiting
from millrace.errors import (
    EngineRejected,
    EngineUnavailable,
    PlatformError,
    SetupError,
    nearest,
)
from resources.configuration.secret import NO_OPTIONS, Secret
from resources.kafka.brokers import Brokers, client_properties
from resources.settings import Settings, setting_place

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

SETTING = "lineage.receivers"
OFF = "none"

_SCHEMES = ("console", "file:", "http://", "https://", "kafka://")
# Brokers are listed by comma too: only a comma before a receiver parts receivers.
_BETWEEN = re.compile(rf"\s*,\s*(?={'|'.join(_SCHEMES)})")
_REFUSED = frozenset({400, 413, 422})
_OK = range(200, 300)
_SHOWN = 200
_MARQUEZ_PATH = "/api/v1/lineage"


class ReceiverAway(EngineUnavailable):
    """A receiver did not take an event; it may later."""

    code = "receiver_away"


class EventRefused(EngineRejected):
    """A receiver says that it will never take this event; the next one it may."""

    code = "event_refused"


class Receiver(Protocol):
    """Takes events, one at a time and in order."""

    @property
    def name(self) -> str:
        """The receiver without secrets: what its progress is kept under."""
        ...

    def send(self, event: Waiting) -> None:
        """Hand over an event; when this returns the receiver has it.

        Raises:
            ReceiverAway: it does not have it, or it is not known whether it has.
            EventRefused: it does not want this event.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def is_off(settings: Settings) -> bool:
    """Say whether nobody is to be told anything."""
    return (settings.lineage or "").strip() == OFF


def receivers(settings: Settings, *, timeout_s: float) -> list[Receiver]:
    """Return the receivers in the order they are named; nothing is opened yet.

    Args:
        settings: names them.
        timeout_s: for each wait for an answer.

    Raises:
        SetupError: one is named in a way that says nothing.
    """
    if is_off(settings):
        return []
    text = (settings.lineage or "").strip() or f"file:{default_file(settings)}"
    return [_receiver(part, settings, timeout_s) for part in _BETWEEN.split(text)]


def default_file(settings: Settings) -> Path:
    """Return where events go if no receiver is named."""
    return settings.home / "lineage" / "events.jsonl"


def _receiver(text: str, settings: Settings, timeout_s: float) -> Receiver:
    if text == "console":
        return ConsoleReceiver()
    if text.startswith("file:"):
        return FileReceiver(Path(text.removeprefix("file:").removeprefix("//")))
    parts = urlsplit(text)
    if parts.scheme in {"http", "https"} and parts.hostname:
        return HttpReceiver(text, timeout_s, settings.lineage_api_key)
    if parts.scheme == "kafka" and parts.netloc and parts.path.strip("/"):
        return KafkaReceiver(_brokers(parts.netloc, settings), parts.path.strip("/"), timeout_s)
    raise SetupError(
        f"{text[:_SHOWN]!r} names no receiver of lineage",
        where=setting_place(SETTING),
        fix=nearest(text, [*_SCHEMES, OFF])
        + "; console, file:/path, http(s)://host/path, kafka://host:port/topic or none",
    )


def _brokers(servers: str, settings: Settings) -> Brokers:
    """Return the Kafka of the settings with their properties; another is taken to be open."""
    is_known = servers == settings.kafka
    return Brokers(servers, settings.kafka_properties if is_known else NO_OPTIONS)


class ConsoleReceiver:
    """Standard output, a line per event."""

    name = "console"

    def send(self, event: Waiting) -> None:
        """Write a line; see ``Receiver.send``."""
        sys.stdout.write(event.body + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Keep standard output open."""


class FileReceiver:
    """A file of JSON lines; each is on disk before the next is sent."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.name = f"file:{self._path}"

    def fault(self) -> str:
        """Say why the file cannot be written, without writing; empty if it looks as if it could."""
        if self._path.is_dir():
            return "it is a folder"
        place = next(one for one in (self._path, *self._path.parents) if one.exists())
        mode = os.W_OK if place == self._path else os.W_OK | os.X_OK
        return "" if os.access(place, mode) else f"{place} may not be written to"

    def send(self, event: Waiting) -> None:
        """Append a line; a half line of a writer that died is ended first."""
        line = event.body.encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ReceiverAway(f"cannot be written: {error.strerror}", where=self.name) from error

    def close(self) -> None:
        """Nothing stays open between lines."""


class HttpReceiver:
    """An HTTP endpoint that takes one event per POST.

    ``Idempotency-Key`` is the digest of the event, the same whenever it is sent: an event comes
    twice if a crash, or the network, falls between its arrival and our knowing of it.
    """

    def __init__(self, url: str, timeout_s: float, api_key: Secret | None) -> None:
        parts = urlsplit(url)
        self._path = (parts.path if parts.path.strip("/") else _MARQUEZ_PATH) + (
            f"?{parts.query}" if parts.query else ""
        )
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        host = parts.hostname or ""
        self._connection = kind(host, parts.port, timeout=timeout_s)
        place = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
        self.name = f"{parts.scheme}://{place}{port}{self._path.partition('?')[0]}"
        self._headers = {"Content-Type": "application/json", "User-Agent": "millrace"}
        self._api_key = api_key

    def send(self, event: Waiting) -> None:
        """POST the event; see ``Receiver.send``."""
        body = event.body.encode()
        headers = {**self._headers, "Idempotency-Key": hashlib.sha256(body).hexdigest()[:32]}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._read_key(self._api_key)}"
        try:
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise ReceiverAway(f"does not answer: {error!r}", where=self.name) from error
        if response.status in _OK:
            return
        said = answer[:_SHOWN].decode(errors="replace")
        what = f"answers {response.status} {response.reason}: {said}"
        if response.status in _REFUSED:
            raise EventRefused(what, where=self.name)
        fix = "look at lineage.receivers and lineage.api_key of the settings"
        raise ReceiverAway(what, where=self.name, fix=fix)

    def _read_key(self, key: Secret) -> str:
        try:
            return key.reveal()
        except PlatformError as error:
            raise ReceiverAway(error.what, where=error.where, fix=error.fix) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class KafkaReceiver:
    """A topic; the key is the run id, so that a run's events stay in one partition, in order."""

    def __init__(self, bootstrap: str, topic: str, timeout_s: float) -> None:
        self.name = f"kafka://{bootstrap}/{topic}"
        self._bootstrap = bootstrap
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer: Producer | None = None

    def send(self, event: Waiting) -> None:
        """Produce the event and wait until all replicas in step have it."""
        from confluent_kafka import KafkaException

        answers: list[KafkaError | None] = []

        def delivered(error: "KafkaError | None", _message: "Message") -> None:
            answers.append(error)

        try:
            producer = self._open()
            producer.produce(
                self._topic,
                event.body.encode(),
                key=(event.run_id or self._key(event)).encode(),
                on_delivery=delivered,
            )
            producer.flush(self._timeout_s + 1)
        except (KafkaException, BufferError) as error:
            raise ReceiverAway(f"does not take events: {error}", where=self.name) from error
        if not answers:
            # What is still under way must not arrive behind the next attempt.
            self.close()
            raise ReceiverAway("does not answer", where=self.name)
        if answers[0] is not None:
            raise ReceiverAway(f"does not take events: {answers[0]}", where=self.name)

    def _open(self) -> "Producer":
        from confluent_kafka import Producer

        if self._producer is None:
            self._producer = Producer(
                {
                    **client_properties(self._bootstrap),
                    "enable.idempotence": True,
                    "message.timeout.ms": int(self._timeout_s * 1000),
                    "linger.ms": 0,
                    "log_level": 0,
                }
            )
        return self._producer

    @staticmethod
    def _key(event: Waiting) -> str:
        document = json.loads(event.body)
        subject = document.get("job") or document["dataset"]
        return f"{subject['namespace']}/{subject['name']}"

    def close(self) -> None:
        """Give up what was not delivered."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None
