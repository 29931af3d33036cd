"""Every setting there is: its key in ``millrace.toml``, its type, its variable, its meaning.

The models are what the file is checked against, what ``docs/settings.md`` is written from, and what
``millrace doctor`` goes through. ``resources.configuration.reading`` fills them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

Kind = Literal["text", "path", "place", "paths", "credential", "secret", "options", "port"]
"""What a setting holds: ``place`` is a path or a URL, a ``credential`` is text that may be given
as a secret is."""

TYPES: Mapping[Kind, str] = {
    "text": "text",
    "path": "path",
    "place": "path or URL",
    "paths": "list of paths",
    "credential": "text or secret",
    "secret": "secret",
    "options": "table of options",
    "port": "port",
}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: its dotted name in the file.
        variable: its environment variable.
        default: what holds where it is absent, in words.
        describes: what it means.
    """

    key: str
    variable: str
    kind: Kind
    default: str
    describes: str


def _setting(kind: Kind, describes: str, *, default: str = "", variable: str = "") -> Any:
    extra: dict[str, JsonValue] = {"kind": kind, "variable": variable, "default": default}
    return Field(default=None, description=describes, json_schema_extra=extra)


def _as_text(value: object) -> object:
    """Write a value as the libraries that take options read it; what is no value stays a fault."""
    if not isinstance(value, dict):
        return value
    return {name: _word(one) for name, one in value.items()}


def _word(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Texts = Annotated[dict[str, str], BeforeValidator(_as_text)]
_Port = Annotated[int, Field(ge=0, le=65_535)]


def _a_uri(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+", text):
        raise ValueError("write a URI, such as https://example.com/millrace or urn:team:millrace")
    return text


_Uri = Annotated[str, AfterValidator(_a_uri)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KafkaTable(_Table):
    """The log."""

    servers: str | None = _setting(
        "text",
        "a Kafka of your own: `host:9092`, several separated by commas",
        default="the local one",
        variable="MILLRACE_KAFKA",
    )
    properties: Texts | None = _setting(
        "options",
        "properties of librdkafka for every client: SASL, TLS, tuning; see [Kafka](#kafka)",
        default="none",
    )


class FlinkTable(_Table):
    """The stream engine."""

    url: str | None = _setting(
        "text",
        "the REST address of a Flink of your own: `http://host:8081`",
        default="the local one",
    )
    kafka_properties: Texts | None = _setting(
        "options",
        "properties of Kafka's Java client for Flink's connector, over those translated from "
        "`kafka.properties`",
        default="none",
    )


class StoreTable(_Table):
    """The online store."""

    url: str | None = _setting(
        "text",
        "a Valkey or Redis of your own: `redis://…`, with TLS `rediss://…`, `unix://…`",
        default="the local one",
    )
    username: str | None = _setting("credential", "its user, where it has users", default="none")
    password: str | None = _setting("secret", "the password", default="none")
    ca_file: str | None = _setting(
        "path", "the authority that signed its certificate, PEM", default="the machine's"
    )
    cert_file: str | None = _setting("path", "the certificate to show it, PEM", default="none")
    key_file: str | None = _setting("path", "the key of that certificate, PEM", default="none")


class SparkTable(_Table):
    """The batch engine."""

    remote: str | None = _setting(
        "text",
        "a Spark Connect server of your own: `sc://host:15002`",
        default="the local one",
    )
    token: str | None = _setting("secret", "the token it wants", default="none")


class LakeTable(_Table):
    """The Delta tables."""

    root: str | None = _setting(
        "place",
        "root of the tables: a path or `s3a://bucket/prefix`",
        default="`lake` in the home",
        variable="MILLRACE_LAKE",
    )
    options: Texts | None = _setting(
        "options",
        "how the object store is opened, by delta-rs's names; Hadoop's (`fs.…`) go to Spark alone",
        default="none",
    )


class LineageTable(_Table):
    """Who is told of what is built, and under which names."""

    receivers: str | None = _setting(
        "text",
        "who is told of what is built, see [lineage](lineage.md)",
        default="a file in the home",
        variable="MILLRACE_LINEAGE",
    )
    api_key: str | None = _setting(
        "secret", "what receivers over HTTP are shown, as a bearer token", default="none"
    )
    namespace: str | None = _setting(
        "text",
        "the namespace of jobs and logical names; another one keeps a stack apart from others",
        default="millrace",
    )
    producer: _Uri | None = _setting(
        "text", "the URI that events name as their producer", default="urn:millrace:platform"
    )


class AlertsTable(_Table):
    """Who is told of what goes wrong."""

    file: str | None = _setting(
        "path",
        "the file of sinks and routes, see [alerts](alerts.md)",
        default="`dagster_home/alerts.yaml` in the checkout, if it is there",
        variable="MILLRACE_ALERTS",
    )


class DocsTable(_Table):
    """These docs."""

    url: _Uri | None = _setting(
        "text",
        "where you serve the folder `docs`: assets, checks and alerts link to its pages there",
        default="none: assets and checks name the file, alerts link to the checkout's",
    )


class PostgresTable(_Table):
    """A database of your own, shared by several machines; see [operations](operations.md)."""

    host: str | None = _setting(
        "text",
        "where it is; Dagster's `production.yaml` reads this and the next four as variables",
        default="none: SQLite in the home",
        variable="MILLRACE_PG_HOST",
    )
    port: _Port | None = _setting("port", "its port", default="5432", variable="MILLRACE_PG_PORT")
    db: str | None = _setting(
        "text", "the name of the database", default="the user's", variable="MILLRACE_PG_DB"
    )
    user: str | None = _setting(
        "credential", "its user", default="none", variable="MILLRACE_PG_USER"
    )
    password: str | None = _setting(
        "secret", "the password", default="none", variable="MILLRACE_PG_PASSWORD"
    )


class SchemaRegistryTable(_Table):
    """The schemas of topics."""

    url: str | None = _setting("text", "its address", default="none")
    username: str | None = _setting("credential", "its user", default="none")
    password: str | None = _setting("secret", "the password", default="none")
    ca_file: str | None = _setting(
        "path", "the authority that signed its certificate, PEM", default="the machine's"
    )


class ServerTable(_Table):
    """The online API, where it is started by hand; the stack chooses its port itself."""

    host: str | None = _setting("text", "the address it binds to", default="127.0.0.1")
    port: _Port | None = _setting("port", "the port it binds to", default="8080")
    fastpath: Literal["on", "off"] | None = _setting(
        "text",
        "`on` or `off`: lookups answered beside the web framework, or by it",
        default="on",
        variable="MILLRACE_FASTPATH",
    )


class Document(BaseSettings):
    """All of ``millrace.toml`` but its profiles, each of which may say any of it again."""

    model_config = SettingsConfigDict(extra="forbid")

    home: str | None = _setting(
        "path",
        "state of one stack: endpoints, logs, Dagster's home, the default lake",
        default="`.millrace` in the checkout",
    )
    cache: str | None = _setting(
        "path",
        "downloads, shared by all stacks; checked by sha256",
        default="`$XDG_CACHE_HOME/millrace`, else `~/.cache/millrace`",
    )
    views: list[str] | None = _setting(
        "paths",
        "further folders of declarations; the variable separates them as `PATH` does",
        default="none",
    )
    data: str | None = _setting(
        "place",
        "folder of raw data, `${MILLRACE_DATA}` in declarations",
        default="`../shared/data`, if it is there",
    )
    kafka: KafkaTable = KafkaTable()
    flink: FlinkTable = FlinkTable()
    store: StoreTable = StoreTable()
    spark: SparkTable = SparkTable()
    lake: LakeTable = LakeTable()
    lineage: LineageTable = LineageTable()
    alerts: AlertsTable = AlertsTable()
    docs: DocsTable = DocsTable()
    postgres: PostgresTable = PostgresTable()
    schema_registry: SchemaRegistryTable = SchemaRegistryTable()
    server: ServerTable = ServerTable()


def sections() -> Iterator[tuple[str, str]]:
    """Yield each section's name and what it is about, in the order of the file."""
    for name, field in Document.model_fields.items():
        if _is_table(field):
            yield name, (field.annotation.__doc__ or "").rstrip(".") if field.annotation else ""


def settings_there_are() -> dict[str, Setting]:
    """Return every setting by its key, in the order of the file."""
    found = {}
    for name, field in Document.model_fields.items():
        if _is_table(field):
            for inner, leaf in field.annotation.model_fields.items():  # type: ignore[union-attr]
                found[f"{name}.{inner}"] = _of(f"{name}.{inner}", leaf)
        else:
            found[name] = _of(name, field)
    return found


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _of(key: str, field: FieldInfo) -> Setting:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)  # noqa: S101 - every field is made by _setting
    variable = extra["variable"] or f"MILLRACE_{key.replace('.', '_').upper()}"
    kind: Any = extra["kind"]
    return Setting(key, str(variable), kind, str(extra["default"]), field.description or "")
