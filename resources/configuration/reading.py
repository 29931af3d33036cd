"""The settings out of their layers: the environment, the profile, the file.

Each layer is what one place says, its paths made absolute; the settings library lays them over each
other and checks the whole. Where a value came from is asked of the layers again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from millrace.errors import Fault, SetupError, nearest
from resources.configuration.model import Document, Setting, settings_there_are
from resources.configuration.secret import MASK, Secret, is_reference, is_secret_name, masked_url
from resources.configuration.toml_file import PROFILE, SettingsFile, UnreadableFile, locate, read

_PLATFORMS_OWN = (
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "metadata.broker.list",
    "transactional.id",
)
"""What decides whether an event is read once: nobody's to set."""

Origin = Literal["default", "file", "environment"]


@dataclass(frozen=True)
class Layer:
    """What one place says.

    Attributes:
        values: as the file nests them; options flat, by their dotted names.
        file: where they stand; None for the environment's.
        profile: the profile of the file that says so; None for what holds in all.
    """

    values: Mapping[str, Any]
    file: SettingsFile | None = None
    profile: str | None = None

    def has(self, key: str) -> bool:
        """Whether the layer says anything about a setting."""
        return _at(self.values, key) is not None

    def place_of(self, key: str) -> str:
        """Return where: ``file:line [section]``, or the variable's name."""
        if self.file is not None:
            return self.file.place_of(key, self.profile)
        setting = setting_of(key)
        return setting.variable if setting else "environment"


@dataclass(frozen=True)
class Shown:
    """A setting as ``millrace doctor`` shows it.

    Attributes:
        value: masked where it is secret; None where nothing is set and nothing holds instead.
        where: ``file:line [section]``, or the variable's name; empty for a default.
    """

    key: str
    value: str | None
    origin: Origin
    where: str

    def as_json(self) -> dict[str, str | None]:
        """Return the setting as ``doctor --json`` shows it."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """Settings that were read and found right.

    Attributes:
        document: all values, as they were written.
        layers: what says so, the strongest first.
        file: the file that counted.
        profile: the chosen profile.
    """

    document: Document
    layers: tuple[Layer, ...]
    file: SettingsFile | None
    profile: str | None = field(default=None)

    def origin_of(self, key: str) -> tuple[Origin, str]:
        """Return where a setting came from."""
        for layer in self.layers:
            if layer.has(key):
                return "environment" if layer.file is None else "file", layer.place_of(key)
        return "default", ""


@cache
def _settings() -> dict[str, Setting]:
    return settings_there_are()


def setting_of(key: str) -> Setting | None:
    """Return the setting that a key, or an option of it, belongs to."""
    while key:
        if key in _settings():
            return _settings()[key]
        key = key.rpartition(".")[0]
    return None


def read_layers(environ: Mapping[str, str], start: Path) -> Reading:
    """Read the settings.

    Args:
        environ: the environment.
        start: the working folder: what relative paths of the environment count from, and where
            the search for the file begins.

    Raises:
        SetupError: the file is absent or no TOML, there is no such profile, a key is unknown or a
            value of another type. Every fault is named with its place.
    """
    path = locate(environ, start)
    try:
        file = None if path is None else read(path)
    except UnreadableFile as error:
        where = f"{error.path}{f':{error.line}' if error.line else ''}"
        fix = "mend it, or name another by MILLRACE_CONFIG; empty, it says that there is none"
        raise SetupError(error.reason, where=where, fix=fix) from error
    profile = environ.get(PROFILE) or None
    if profile is not None and profile not in (file.profiles if file else {}):
        raise _no_such_profile(profile, file)
    layers = [_of_environment(environ, start)]
    if file is not None:
        if profile is not None:
            layers.append(_of_file(file.profiles[profile], file, profile))
        layers.append(_of_file(file.base, file, None))
    return Reading(_merged(layers), tuple(layers), file, profile)


def _no_such_profile(profile: str, file: SettingsFile | None) -> SetupError:
    if file is None:
        what = f"{PROFILE} is {profile!r}, and there is no millrace.toml"
        return SetupError(what, where="environment", fix="name it by MILLRACE_CONFIG")
    known = nearest(profile, list(file.profiles)) or f"write a section [profile.{profile}]"
    return SetupError(f"there is no profile {profile!r}", where=str(file.path), fix=known)


def _merged(layers: list[Layer]) -> Document:
    class Merged(Document):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, dict(one.values)) for one in layers)

    try:
        merged = Merged()
    except ValidationError as error:
        faults = [_fault(one, layers) for one in error.errors()]
    else:
        faults = list(_refused_properties(merged, layers))
    if len(faults) == 1:
        raise SetupError(faults[0].what, where=faults[0].where, fix=faults[0].fix)
    if faults:
        told = "\n".join(map(str, faults))
        raise SetupError(f"{len(faults)} faults in the settings\n{told}")
    return merged


def _fault(error: ErrorDetails, layers: list[Layer]) -> Fault:
    key = ".".join(map(str, error["loc"]))
    where = next((one.place_of(key) for one in layers if one.has(key)), "settings")
    if error["type"] == "extra_forbidden":
        section, _, name = key.rpartition(".")
        inside = f" of [{section}]" if section else ""
        return Fault(f"{name!r} is no setting{inside}", where, nearest(name, _names_in(section)))
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        names = _names_in(key)
        fix = f"[{key}] is a section" + (f": {', '.join(names)}" if names else "")
        return Fault(f"{key!r} is {_told(key, error['input'])}", where, fix)
    told = error["msg"].removeprefix("Value error, ")
    fix = told[:1].lower() + told[1:]
    return Fault(f"{key!r} is {_told(key, error['input'])}", where, fix)


def _names_in(section: str) -> list[str]:
    """Return the keys and sections directly below a section."""
    depth = len(section.split(".")) if section else 0
    inside = f"{section}." if section else ""
    return list(
        dict.fromkeys(key.split(".")[depth] for key in _settings() if key.startswith(inside))
    )


def _told(key: str, value: object) -> str:
    setting = setting_of(key)
    is_secret = setting is not None and setting.kind == "secret"
    if is_secret or is_secret_name(key) or isinstance(value, dict):
        return f"a {type(value).__name__}" if not isinstance(value, str) else MASK
    return masked_url(repr(value))


def _refused_properties(document: Document, layers: list[Layer]) -> Iterator[Fault]:
    for name in document.kafka.properties or {}:
        if name in _PLATFORMS_OWN:
            key = f"kafka.properties.{name}"
            where = next((one.place_of(key) for one in layers if one.has(key)), "settings")
            is_address = name in {"bootstrap.servers", "metadata.broker.list"}
            fix = "name the brokers by kafka.servers" if is_address else "leave it out"
            yield Fault(f"{name!r} is the platform's own to set", where, fix)


# -- the layers -----------------------------------------------------------------------------------


def _of_environment(environ: Mapping[str, str], start: Path) -> Layer:
    values: dict[str, Any] = {}
    for key, setting in _settings().items():
        if text := environ.get(setting.variable):
            section, _, name = key.rpartition(".")
            table = values.setdefault(section, {}) if section else values
            table[name] = _absolute(setting, _parsed(setting, text), start)
    return Layer(values)


def _parsed(setting: Setting, text: str) -> Any:
    if setting.kind == "paths":
        return [part for part in text.split(os.pathsep) if part]
    if setting.kind != "options":
        return text
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SetupError(
            "it is no JSON object",
            where=setting.variable,
            fix='{"security.protocol": "SASL_SSL"}, for one',
        )
    return found


def _of_file(values: Mapping[str, Any], file: SettingsFile, profile: str | None) -> Layer:
    return Layer(_resolved(values, "", file.path.parent), file, profile)


def _resolved(values: Mapping[str, Any], prefix: str, folder: Path) -> dict[str, Any]:
    """Return the values with absolute paths, and options flat: TOML nests unquoted dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        setting = _settings().get(f"{prefix}{name}")
        if setting is not None:
            given = dict(_flat(value)) if setting.kind == "options" and _is_dict(value) else value
            found[name] = _absolute(setting, given, folder)
        elif _is_dict(value):
            found[name] = _resolved(value, f"{prefix}{name}.", folder)
        else:
            found[name] = value
    return found


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _absolute(setting: Setting, value: Any, folder: Path) -> Any:
    if setting.kind == "options" and isinstance(value, dict):
        return {name: _absolute_option(name, one, folder) for name, one in value.items()}
    if setting.kind == "paths" and isinstance(value, list):
        return [_joined(one, folder) for one in value]
    if setting.kind in {"path", "place"}:
        return _joined(value, folder)
    is_secret = setting.kind in {"credential", "secret"}
    return _absolute_reference(value, folder) if is_secret else value


def _absolute_option(name: str, value: Any, folder: Path) -> Any:
    # librdkafka's names of files; "probe" asks it to look for the machine's authorities.
    if name.endswith((".location", ".keytab")) and value != "probe":
        return _joined(value, folder)
    return _absolute_reference(value, folder)


def _absolute_reference(value: Any, folder: Path) -> Any:
    if isinstance(value, str) and value.startswith("file:"):
        return f"file:{folder / value.removeprefix('file:')}"
    return value


def _joined(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or "://" in value or is_reference(value):
        return _absolute_reference(value, folder)
    return str(folder / value)


def _at(values: Mapping[str, Any], key: str) -> Any:
    """Return what stands under a dotted key, whose last part may have dots of its own."""
    name, _, rest = key.partition(".")
    if key in values:
        return values[key]
    inner = values.get(name)
    return _at(inner, rest) if rest and isinstance(inner, dict) else None


# -- what people are shown ------------------------------------------------------------------------


def shown(reading: Reading, effective: Mapping[str, str | None]) -> Iterator[Shown]:
    """Yield every setting, and every option of a table of options, with its origin.

    Args:
        reading: what was read.
        effective: the values of settings whose default is worked out, by key.
    """
    for key, setting in _settings().items():
        value = _at(reading.document.model_dump(), key)
        if setting.kind == "options":
            if not value:
                yield Shown(key, None, "default", "")
            for name, text in (value or {}).items():
                secret = Secret(text).shown if is_secret_name(name) else masked_url(text)
                yield Shown(f"{key}.{name}", secret, *reading.origin_of(f"{key}.{name}"))
            continue
        origin, where = reading.origin_of(key)
        if value is None:
            value = effective.get(key)
        elif setting.kind == "paths":
            value = os.pathsep.join(value)
        yield Shown(key, _masked(setting, value), origin, where)


def _masked(setting: Setting, value: Any) -> str | None:
    if value is None:
        return None
    return Secret(value).shown if setting.kind == "secret" else masked_url(str(value))
