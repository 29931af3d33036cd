"""The alerts' YAML file: sinks, routes and windows; every fault of it is reported at once."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import yaml
from yaml.nodes import Node

from alerts.facts import KINDS, SEVERITIES
from alerts.routing import Match, Route, Routing
from alerts.sinks.kinds import SINK_KINDS
from alerts.sinks.sink import Field, Sink
from millrace.durations import DAY_MS, MINUTE_MS, parse_duration
from millrace.errors import SetupError, SpecError, nearest
from millrace.faults import FaultList, by_place, is_read
from millrace.load.keys import Keys
from millrace.load.nodes import NodeReader, Record
from millrace.spec import Location
from resources.settings import CHECKOUT, Settings, setting_place

SETTING = "alerts.file"
DEFAULT_FILE = CHECKOUT / "dagster_home" / "alerts.yaml"
VERSION = "millrace-alerts/v1"

_FILE = Keys.plain(
    "the alerts file",
    ("version", "sinks"),
    (
        "routes",
        "fallback",
        "operators",
        "renotify",
        "digest",
        "streams",
        "heartbeat",
        "fold",
        "dagster_url",
        "docs_url",
    ),
)
_ROUTE = Keys.plain("a route", ("sinks",), ("owners", "tags", "severities", "kinds", "names"))
_DIGEST = Keys.plain("digest", (), ("above", "size", "window"))
_STREAMS = Keys.plain("streams", (), ("hold", "max_lag_events", "max_checkpoint_age", "max_wait"))
_FOLD = Keys.plain("fold", (), ("enabled", "hold", "settle"))
_HEARTBEAT = Keys.plain("heartbeat", ("every", "sinks"))
_VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")
_SECRET_HEADER = re.compile(r"(?i)auth|token|key|secret|cookie")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class SinkSpec:
    """A sink as written: ``${NAME}`` of environment variables is still in its options."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    def open(self, env: Mapping[str, str] | None = None) -> Sink:
        """Make the sink; nothing is connected yet.

        Raises:
            SetupError: an environment variable that it names is not set.
        """
        env = os.environ if env is None else env

        def put_in(value: Any) -> Any:
            if isinstance(value, str):
                return _VARIABLE.sub(lambda match: self._read(match[1], env), value)
            if isinstance(value, tuple):
                return tuple(put_in(one) for one in value)
            if isinstance(value, Mapping):
                return {key: put_in(one) for key, one in value.items()}
            return value

        return SINK_KINDS[self.type].build({k: put_in(v) for k, v in self.options.items()})

    def _read(self, name: str, env: Mapping[str, str]) -> str:
        value = env.get(name)
        if not value:
            raise SetupError(
                f"the sink needs {name}, which is not set",
                where=f"alert sink {self.name}",
                fix=f"export {name}=… where Dagster's code server and runs are started",
            )
        return value


@dataclass(frozen=True)
class Digests:
    """When messages to one sink are put together.

    Attributes:
        above: more than so many, sent within ``window_ms`` or waiting, are a storm.
        size: most messages in one digest.
    """

    above: int = 10
    size: int = 50
    window_ms: int = 5 * MINUTE_MS


@dataclass(frozen=True)
class StreamLimits:
    """What a stream must keep to.

    Attributes:
        hold_ms: it may be down or behind for so long before anybody is told.
        max_lag_events: more uncounted events are a failure; None: not judged.
        max_checkpoint_age_ms: an older last checkpoint is one.
        max_wait_ms: a new version of a view may wait for so long before anybody is told.
    """

    hold_ms: int = 2 * MINUTE_MS
    max_lag_events: int | None = None
    max_checkpoint_age_ms: int = 3 * MINUTE_MS
    max_wait_ms: int = 30 * MINUTE_MS


@dataclass(frozen=True)
class FoldTimes:
    """Whether incidents are folded, and how long they wait for each other; see ``folding.Folds``."""

    is_on: bool = True
    hold_ms: int = 2 * MINUTE_MS
    settle_ms: int = 30 * MINUTE_MS


@dataclass(frozen=True)
class AlertConfig:
    """Everything that is configured.

    Attributes:
        renotify_ms: an error that stays open is told again after so long.
        heartbeat_ms: how often ``heartbeat_sinks`` get a sign of life; None: never.
        dagster_url: base of links; empty: the stack's own webserver, if it runs.
        docs_url: where the folder ``docs`` is served, for runbooks; empty: as the settings say.
    """

    sinks: Mapping[str, SinkSpec]
    routing: Routing
    renotify_ms: int = DAY_MS
    digests: Digests = Digests()
    streams: StreamLimits = StreamLimits()
    heartbeat_ms: int | None = None
    heartbeat_sinks: tuple[str, ...] = ()
    fold: FoldTimes = FoldTimes()
    dagster_url: str = ""
    docs_url: str = ""


def only_stdout() -> AlertConfig:
    """Return what counts without a file: everything is told on stdout."""
    names = ("stdout",)
    return AlertConfig({"stdout": SinkSpec("stdout", "stdout")}, Routing((), names, names, names))


def load_config(settings: Settings) -> AlertConfig:
    """Read the file that the setting ``alerts.file`` names, else ``dagster_home/alerts.yaml``.

    Without either, ``only_stdout``.

    Raises:
        SetupError: the file that is named is not there.
        SpecError: with every fault of the file.
    """
    path = settings.alerts or DEFAULT_FILE
    if settings.alerts is None and not path.exists():
        return only_stdout()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            f"cannot read the alerts file: {error}",
            where=setting_place(SETTING),
            fix="name another file, or none, to be told on stdout",
        ) from error
    return read_config(text, str(path))


def read_config(text: str, file: str = "alerts.yaml") -> AlertConfig:
    """Read a configuration.

    Args:
        text: the whole file.
        file: its name, for ``file:line`` in faults.

    Raises:
        SpecError: with every fault.
    """
    faults = FaultList()
    root: Node | None = None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        what = f"this is no YAML: {getattr(error, 'problem', None) or error}"
        faults.add(Location(file, line), what, "indent with spaces; quote text that holds : or {")
    else:
        if root is None:
            faults.add(Location(file, 1), "the file is empty", f"begin with version: {VERSION}")
    config = None if root is None else _Reading(NodeReader(file, faults)).file(root)
    if len(faults) or config is None:
        raise SpecError.of(by_place(list(faults)))
    return config


class _Reading:
    """One reading of one file; faults gather in the reader."""

    def __init__(self, reader: NodeReader) -> None:
        self.reader = reader
        self.sinks: dict[str, SinkSpec] = {}

    def file(self, root: Node) -> AlertConfig | None:
        record = self.reader.record(root, _FILE)
        if record is None:
            return None
        version = record.text("version")
        node = record.node("version")
        if node is not None and is_read(version) and version != VERSION:
            self.reader.fault(node, f"version is {version!r}", f"write version: {VERSION}")
        self._read_sinks(record)
        fallback = self.names(record, "fallback") or tuple(self.sinks)[:1]
        operators = self.names(record, "operators") or fallback
        routes = tuple(route for n in record.items("routes") if (route := self.route(n)))
        heartbeat = self.part(record, "heartbeat", _HEARTBEAT)
        return AlertConfig(
            sinks=self.sinks,
            routing=Routing(routes, fallback, operators, tuple(self.sinks)),
            renotify_ms=self.duration(record, "renotify", DAY_MS),
            digests=self.digests(self.part(record, "digest", _DIGEST)),
            streams=self.streams(self.part(record, "streams", _STREAMS)),
            heartbeat_ms=self.duration(heartbeat, "every", DAY_MS) if heartbeat else None,
            heartbeat_sinks=self.names(heartbeat, "sinks") if heartbeat else (),
            fold=self.fold(self.part(record, "fold", _FOLD)),
            dagster_url=(record.optional_text("dagster_url") or "").rstrip("/"),
            docs_url=(record.optional_text("docs_url") or "").rstrip("/"),
        )

    def _read_sinks(self, record: Record) -> None:
        node = record.node("sinks")
        if node is None:
            return
        for name, key_node, value in self.reader.pairs(node, "sinks"):
            sink = self.sink(name, value)
            if sink is not None:
                self.sinks[name] = sink
            else:
                # Known by name, so that routes to it are no faults besides.
                self.sinks.setdefault(name, SinkSpec(name, "stdout"))
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name):
                fix = "write letters, digits, . _ -"
                self.reader.fault(key_node, f"{name!r} is no name of a sink", fix)
        if not self.sinks:
            self.reader.fault(node, "there is no sink", "add one: log: {type: stdout}")

    def sink(self, name: str, node: Node) -> SinkSpec | None:
        types = {key: value for key, _, value in self.reader.pairs(node, f"sink {name}")}
        if "type" not in types:
            known = ", ".join(SINK_KINDS)
            self.reader.fault(node, f"the sink {name} has no type", f"add type: one of {known}")
            return None
        type_ = self.reader.text(types["type"], "type")
        kind = SINK_KINDS.get(type_)
        if kind is None:
            hint = nearest(type_, list(SINK_KINDS))
            self.reader.fault(types["type"], f"there is no sink type {type_!r}", hint)
            return None
        required = tuple(name for name, one in kind.fields.items() if one.is_required)
        optional = tuple(name for name, one in kind.fields.items() if not one.is_required)
        keys = Keys.plain(f"a {type_} sink", ("type", *required), optional)
        record = self.reader.record(node, keys)
        if record is None:
            return None
        present = {key: record.node(key) for key in kind.fields if key in record}
        options = {
            key: self.option(found, key, kind.fields[key])
            for key, found in present.items()
            if found is not None
        }
        return SinkSpec(name, type_, options)

    def option(self, node: Node, name: str, shape: Field) -> Any:
        if shape.shape == "number":
            return (
                self.reader.number(node, name)
                if shape.least is None
                else self.whole(node, name, shape.least)
            )
        if shape.shape == "texts":
            return tuple(self.reader.text(one, name) for one in self.reader.items(node, name))
        if shape.shape == "pairs":
            return {key: self.header(key, value) for key, _, value in self.reader.pairs(node, name)}
        text = self.reader.text(node, name)
        if shape.shape == "secret" and is_read(text):
            self.no_secret(node, name, text)
        if shape.choices and is_read(text) and text not in shape.choices:
            hint = nearest(text, list(shape.choices))
            self.reader.fault(node, f"{name} is {text!r}", hint)
        return text

    def header(self, name: str, node: Node) -> str:
        text = self.reader.text(node, name)
        if _SECRET_HEADER.search(name) and is_read(text):
            self.no_secret(node, name, text)
        return text

    def no_secret(self, node: Node, name: str, text: str) -> None:
        if not _VARIABLE.search(text):
            # The value itself is a secret, so it is not shown.
            fix = f"write {name}: ${{{name.upper().replace('-', '_')}}} and set that variable"
            self.reader.fault(node, f"{name} stands here in the clear", fix)

    def route(self, node: Node) -> Route | None:
        record = self.reader.record(node, _ROUTE)
        if record is None:
            return None
        tags = record.node("tags")
        pairs = () if tags is None else self.reader.pairs(tags, "tags")
        match = Match(
            owners=record.texts("owners"),
            tags={key: self.reader.text(value, key) for key, _, value in pairs},
            severities=self.of(record, "severities", SEVERITIES),
            kinds=self.of(record, "kinds", KINDS),
            names=record.texts("names"),
        )
        return Route(match, self.names(record, "sinks"))

    def of(self, record: Record, name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
        found = record.texts(name)
        for node, text in zip(record.items(name), found, strict=False):
            if is_read(text) and text not in choices:
                hint = nearest(text, list(choices))
                self.reader.fault(node, f"{name} has {text!r}", hint)
        return found

    def names(self, record: Record, name: str) -> tuple[str, ...]:
        found = record.texts(name)
        for node, text in zip(record.items(name), found, strict=False):
            if is_read(text) and text not in self.sinks:
                hint = nearest(text, list(self.sinks))
                self.reader.fault(node, f"there is no sink {text!r}", hint)
        return found

    def part(self, record: Record, name: str, keys: Keys) -> Record | None:
        node = record.node(name)
        return None if node is None else self.reader.record(node, keys)

    def digests(self, record: Record | None) -> Digests:
        default = Digests()
        return Digests(
            above=self.count(record, "above", default.above, least=1),
            size=self.count(record, "size", default.size, least=2),
            window_ms=self.duration(record, "window", default.window_ms),
        )

    def streams(self, record: Record | None) -> StreamLimits:
        default = StreamLimits()
        age_ms = self.duration(record, "max_checkpoint_age", default.max_checkpoint_age_ms)
        is_judged = record is not None and "max_lag_events" in record
        lag = self.count(record, "max_lag_events", 0, least=0) if is_judged else None
        wait_ms = self.duration(record, "max_wait", default.max_wait_ms)
        return StreamLimits(self.duration(record, "hold", default.hold_ms), lag, age_ms, wait_ms)

    def fold(self, record: Record | None) -> FoldTimes:
        default = FoldTimes()
        return FoldTimes(
            is_on=record is None or record.flag("enabled", default=True),
            hold_ms=self.duration(record, "hold", default.hold_ms),
            settle_ms=self.duration(record, "settle", default.settle_ms),
        )

    def count(self, record: Record | None, name: str, default: int, *, least: int) -> int:
        node = None if record is None else record.node(name)
        if node is None:
            return default
        number = self.whole(node, name, least)
        return default if number is None else number

    def whole(self, node: Node, name: str, least: int) -> int | None:
        number = self.reader.number(node, name)
        if number is None:
            return None
        if number < least or number != int(number):
            what = f"{name} is {number:g}"
            self.reader.fault(node, what, f"write a whole number of at least {least}")
            return None
        return int(number)

    def duration(self, record: Record | None, name: str, default_ms: int) -> int:
        node = None if record is None else record.node(name)
        if node is None:
            return default_ms
        text = self.reader.text(node, name)
        if not is_read(text):
            return default_ms
        try:
            return parse_duration(text)
        except ValueError as error:
            self.reader.fault(node, f"{name}: {error}", f"write {name}: 1d, 30m or 90s")
            return default_ms
