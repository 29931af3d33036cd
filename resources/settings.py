"""Where things are and how one is let in: the settings, read once, as a typed record.

They come from the environment, from a profile of ``millrace.toml``, and from that file, in this order;
``docs/settings.md`` lists them. Reading needs the settings library and is imported when first asked.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.errors import SetupError
from resources.configuration.secret import NO_OPTIONS, Options, Secret, Value, is_reference

if TYPE_CHECKING:
    from resources.configuration.model import PostgresTable
    from resources.configuration.reading import Reading, Shown

CHECKOUT = Path(__file__).resolve().parents[1]
"""The root of the installed checkout."""

_PLACEHOLDER = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")


@dataclass(frozen=True)
class StoreAccess:
    """What the online store asks of a client beside its address.

    Attributes:
        ca_file: PEM of the authority that signed its certificate; None for the machine's.
        cert_file: PEM of the certificate to show it.
        key_file: PEM of that certificate's key.
    """

    username: Value | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


OPEN_STORE = StoreAccess()


@dataclass(frozen=True)
class SchemaRegistry:
    """A schema registry and what it asks of a client.

    Attributes:
        ca_file: PEM of the authority that signed its certificate; None for the machine's.
    """

    url: str = field(repr=False)
    username: Value | None = None
    password: Secret | None = None
    ca_file: Path | None = None


@dataclass(frozen=True)
class Postgres:
    """A database of the user's own.

    Attributes:
        db: None for the user's.
    """

    host: str
    port: int = 5432
    db: str | None = None
    user: Value | None = None
    password: Secret | None = None


@dataclass(frozen=True)
class Settings:
    """One stack's places. Every path is absolute; URLs are as given.

    A URL may hold a password, so its ``repr`` is left out; what else is secret is a ``Secret``.

    Attributes:
        home: state of this stack: endpoints, logs, dagster_home, the default lake.
        cache: downloads shared by all stacks.
        views: directories of declarations, the repository's own first.
        data: folder of raw data that ``${MILLRACE_DATA}`` stands for; None if there is none.
        lake: root of the Delta tables: an absolute path or a URL such as ``s3a://bucket/lake``.
        spark_remote: Spark Connect URL of the user's own server; None for the local one.
        lineage: receivers of OpenLineage events, see ``lineage.receivers``; None for a
            file under ``home``.
        lineage_api_key: what receivers over HTTP are shown.
        lineage_namespace: of jobs and logical names in lineage.
        lineage_producer: the URI that its events name as their producer.
        alerts: the alerts' file; None for the checkout's, if it is there.
        docs_url: where the folder ``docs`` is served, without a slash at its end; None: nowhere.
        postgres: where alerts are kept; None for SQLite under ``home``.
        config: the settings' file; None if there is none.
        profile: the profile of it that was chosen.
        kafka_properties: properties of librdkafka for every client.
        flink_kafka_properties: properties of Kafka's Java client, for Flink's connector alone.
        store: how the online store of ``store_url`` is opened.
        spark_token: the token that ``spark_remote`` wants.
        lake_options: how the lake's object store is opened, see ``resources.lake.options``.
        schema_registry: None if there is none.
        server_host: the address the online API binds to.
        server_port: its port.
        server_fastpath: whether it answers lookups beside the web framework.
    """

    home: Path
    cache: Path
    views: tuple[Path, ...]
    data: str | None
    lake: str
    spark_remote: str | None = field(repr=False)
    kafka: str | None
    flink_url: str | None = field(repr=False)
    store_url: str | None = field(repr=False)
    lineage: str | None = field(default=None, repr=False)
    config: Path | None = None
    profile: str | None = None
    kafka_properties: Options = NO_OPTIONS
    flink_kafka_properties: Options = NO_OPTIONS
    store: StoreAccess = OPEN_STORE
    spark_token: Secret | None = None
    lake_options: Options = NO_OPTIONS
    schema_registry: SchemaRegistry | None = None
    server_host: str = "127.0.0.1"
    server_port: int = 8080
    server_fastpath: bool = True
    lineage_api_key: Secret | None = None
    lineage_namespace: str = "millrace"
    lineage_producer: str = "urn:millrace:platform"
    alerts: Path | None = None
    docs_url: str | None = None
    postgres: Postgres | None = None

    def expand(self, path: str, *, where: str = "", quote: Callable[[str], str] = str) -> str:
        """Replace ``${MILLRACE_DATA}``, ``${MILLRACE_HOME}`` and other variables in a raw path.

        Relative paths count from the checkout. What replaces is literal: ``quote`` escapes it where
        the path is a pattern.

        Raises:
            SetupError: a variable is not set.
        """

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            value = self._placeholders().get(name) or os.environ.get(name)
            if value is None:
                raise SetupError(
                    f"the path {path!r} needs {name}, which is not set",
                    where=where,
                    fix=f"export {name}=…",
                )
            return value if "://" in value else quote(value)

        expanded = _PLACEHOLDER.sub(replace, path)
        if "://" in expanded:
            return expanded
        return str(Path(quote(str(CHECKOUT))) / expanded)

    def _placeholders(self) -> Mapping[str, str | None]:
        return {
            "MILLRACE_HOME": str(self.home),
            "MILLRACE_CACHE": str(self.cache),
            "MILLRACE_DATA": self.data,
            "MILLRACE_LAKE": self.lake,
        }


def settings_from_env(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; ``env`` defaults to the process environment.

    Nothing is created. Beside ``millrace.toml`` only ``../shared/data`` is looked for (the default
    of ``data``).

    Raises:
        SetupError: ``millrace.toml`` cannot be used; every fault of it is named.
    """
    return _settings_of(_read(env), os.environ if env is None else env)


def settings_shown(env: Mapping[str, str] | None = None) -> "list[Shown]":
    """Return every setting with its value, secrets masked, and where it came from.

    Raises:
        SetupError: ``millrace.toml`` cannot be used.
    """
    from resources.configuration.reading import shown

    reading = _read(env)
    settings = _settings_of(reading, os.environ if env is None else env)
    effective = {
        "home": str(settings.home),
        "cache": str(settings.cache),
        "data": settings.data,
        "lake.root": settings.lake,
        "server.host": settings.server_host,
        "server.port": str(settings.server_port),
        "server.fastpath": "on" if settings.server_fastpath else "off",
        "lineage.namespace": settings.lineage_namespace,
        "lineage.producer": settings.lineage_producer,
    }
    return list(shown(reading, effective))


def setting_place(key: str, env: Mapping[str, str] | None = None) -> str:
    """Return where to mend a setting: ``file:line [section]``, else its variable.

    Raises:
        SetupError: ``millrace.toml`` cannot be used.
    """
    from resources.configuration.reading import setting_of

    setting = setting_of(key)
    return _read(env).origin_of(key)[1] or (setting.variable if setting else key)


def profiles_with_faults(env: Mapping[str, str] | None = None) -> "list[SetupError]":
    """Return what is wrong with the profiles that are not chosen; each would fail once it is.

    Raises:
        SetupError: the settings as they are chosen are wrong.
    """
    from resources.configuration.toml_file import PROFILE

    env = os.environ if env is None else env
    file, faults = _read(env).file, []
    for profile in file.profiles if file else ():
        try:
            _read({**env, PROFILE: profile})
        except SetupError as error:
            faults.append(error)
    return faults


def _read(env: Mapping[str, str] | None) -> "Reading":
    # The settings library costs a tenth of a second: not for those who only name the record.
    from resources.configuration.reading import read_layers

    return read_layers(os.environ if env is None else env, Path.cwd())


def _settings_of(reading: "Reading", env: Mapping[str, str]) -> Settings:
    given = reading.document
    home = Path(given.home or CHECKOUT / ".millrace")
    shared = CHECKOUT.parent / "shared" / "data"
    registry = given.schema_registry
    return Settings(
        home=home,
        cache=Path(given.cache or _default_cache(env)).absolute(),
        views=(CHECKOUT / "feature_assets" / "views", *map(Path, given.views or ())),
        data=given.data or (str(shared) if shared.is_dir() else None),
        lake=given.lake.root or str(home / "lake"),
        spark_remote=given.spark.remote,
        kafka=given.kafka.servers,
        flink_url=given.flink.url,
        store_url=given.store.url,
        lineage=given.lineage.receivers,
        config=reading.file.path if reading.file else None,
        profile=reading.profile,
        kafka_properties=Options.of(given.kafka.properties or {}, "kafka.properties"),
        flink_kafka_properties=Options.of(
            given.flink.kafka_properties or {}, "flink.kafka_properties"
        ),
        store=StoreAccess(
            username=_credential(given.store.username, "store.username"),
            password=_secret(given.store.password, "store.password"),
            ca_file=_path(given.store.ca_file),
            cert_file=_path(given.store.cert_file),
            key_file=_path(given.store.key_file),
        ),
        spark_token=_secret(given.spark.token, "spark.token"),
        lake_options=Options.of(given.lake.options or {}, "lake.options"),
        schema_registry=None
        if registry.url is None
        else SchemaRegistry(
            url=registry.url,
            username=_credential(registry.username, "schema_registry.username"),
            password=_secret(registry.password, "schema_registry.password"),
            ca_file=_path(registry.ca_file),
        ),
        server_host=given.server.host or Settings.server_host,
        server_fastpath=given.server.fastpath != "off",
        server_port=Settings.server_port if given.server.port is None else given.server.port,
        lineage_api_key=_secret(given.lineage.api_key, "lineage.api_key"),
        lineage_namespace=given.lineage.namespace or Settings.lineage_namespace,
        lineage_producer=given.lineage.producer or Settings.lineage_producer,
        alerts=_path(given.alerts.file),
        docs_url=given.docs.url.rstrip("/") if given.docs.url else None,
        postgres=_postgres(given.postgres),
    )


def _postgres(given: "PostgresTable") -> Postgres | None:
    if given.host is None:
        return None
    return Postgres(
        given.host,
        Postgres.port if given.port is None else given.port,
        given.db,
        _credential(given.user, "postgres.user"),
        _secret(given.password, "postgres.password"),
    )


def _secret(text: str | None, key: str) -> Secret | None:
    return None if text is None else Secret(text, key)


def _credential(text: str | None, key: str) -> Value | None:
    return Secret(text, key) if text is not None and is_reference(text) else text


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _default_cache(env: Mapping[str, str]) -> Path:
    # Asked for only if needed: an account without a home folder has no answer.
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"
