"""The settings' environment variables as an order carries them: absolute and complete.

What has a variable of its own and holds no secret stands in the order. The rest a part reads from
the settings' file, which the order names together with its profile; a digest of it stands beside
them, so that a change of it restarts the parts it concerns, and no secret is written down again.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import fields

from resources.configuration.secret import Options, Secret
from resources.configuration.toml_file import CONFIG, PROFILE
from resources.settings import Postgres, Settings, StoreAccess
from stack.files import Order
from stack.parts import Part

VIEWS = "MILLRACE_VIEWS"
SETTINGS_FILE = (CONFIG, PROFILE)
SERVER_HOST = "MILLRACE_SERVER_HOST"
KAFKA_ACCESS = "MILLRACE_KAFKA_ACCESS"
STORE_ACCESS = "MILLRACE_STORE_ACCESS"
SPARK_ACCESS = "MILLRACE_SPARK_ACCESS"
LAKE_ACCESS = "MILLRACE_LAKE_ACCESS"
POSTGRES_ACCESS = "MILLRACE_POSTGRES_ACCESS"
LINEAGE = ("MILLRACE_LINEAGE", "MILLRACE_LINEAGE_NAMESPACE", "MILLRACE_LINEAGE_PRODUCER")
LINEAGE_ACCESS = "MILLRACE_LINEAGE_ACCESS"
ALERTS = "MILLRACE_ALERTS"

VARIABLES = (
    *SETTINGS_FILE,
    "MILLRACE_HOME",
    "MILLRACE_CACHE",
    VIEWS,
    "MILLRACE_DATA",
    "MILLRACE_LAKE",
    "MILLRACE_SPARK_REMOTE",
    "MILLRACE_KAFKA",
    "MILLRACE_FLINK_URL",
    "MILLRACE_STORE_URL",
    *LINEAGE,
    ALERTS,
    SERVER_HOST,
    KAFKA_ACCESS,
    STORE_ACCESS,
    SPARK_ACCESS,
    LAKE_ACCESS,
    LINEAGE_ACCESS,
    POSTGRES_ACCESS,
    "JAVA_HOME",
)
"""All that an order carries; one that is absent there is absent for the part."""


def environment_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Write settings as the environment from which the same settings are read again."""
    values = {
        PROFILE: settings.profile,
        "MILLRACE_HOME": str(settings.home),
        "MILLRACE_CACHE": str(settings.cache),
        # The repository's own views come first and are not named by the variable.
        VIEWS: os.pathsep.join(map(str, settings.views[1:])),
        "MILLRACE_DATA": settings.data,
        "MILLRACE_LAKE": settings.lake,
        "MILLRACE_SPARK_REMOTE": settings.spark_remote,
        "MILLRACE_KAFKA": settings.kafka,
        "MILLRACE_FLINK_URL": settings.flink_url,
        "MILLRACE_STORE_URL": settings.store_url,
        "MILLRACE_LINEAGE": settings.lineage,
        "MILLRACE_LINEAGE_NAMESPACE": settings.lineage_namespace,
        "MILLRACE_LINEAGE_PRODUCER": settings.lineage_producer,
        ALERTS: None if settings.alerts is None else str(settings.alerts),
        SERVER_HOST: settings.server_host,
        KAFKA_ACCESS: _digest(settings, settings.kafka_properties, settings.flink_kafka_properties),
        STORE_ACCESS: _digest(settings, settings.store),
        SPARK_ACCESS: _digest(settings, settings.spark_token),
        LAKE_ACCESS: _digest(settings, settings.lake_options),
        LINEAGE_ACCESS: _digest(settings, settings.lineage_api_key),
        POSTGRES_ACCESS: _digest(settings, settings.postgres),
        "JAVA_HOME": environ.get("JAVA_HOME"),
    }
    # Empty it says that no file counts, wherever the part looks from.
    config = {CONFIG: "" if settings.config is None else str(settings.config)}
    return config | {name: value for name, value in values.items() if value}


def _digest(settings: Settings, *access: object) -> str | None:
    """Return a mark of what an order does not write down; None where there is nothing of it."""
    texts = [text for one in access for text in _texts(one)]
    if not any(texts):
        return None
    salted = "\0".join([str(settings.home), *texts])
    return hashlib.sha256(salted.encode()).hexdigest()[:16]


def _texts(value: object) -> list[str]:
    if value is None:
        return [""]
    if isinstance(value, Secret):
        return [value.text]
    if isinstance(value, Options):
        return [text for name, one in value.pairs for text in (name, *_texts(one))]
    if isinstance(value, StoreAccess | Postgres):
        return [text for one in fields(value) for text in _texts(getattr(value, one.name))]
    return [str(value)]


def relevant(part: Part, order: Order) -> dict[str, str | None]:
    """Return the variables whose change restarts the part, as the order has them."""
    return {name: order.environment.get(name) for name in part.variables}


def changed_variables(part: Part, before: Order, after: Order) -> tuple[str, ...]:
    """Name the variables for which the part must be restarted; none if it may go on."""
    old, new = relevant(part, before), relevant(part, after)
    return tuple(name for name in part.variables if old[name] != new[name])


def reads_more(before: Order, after: Order) -> bool:
    """Whether an order names every folder of declarations that a later one names."""
    old, new = (
        set(filter(None, order.environment.get(VIEWS, "").split(os.pathsep)))
        for order in (before, after)
    )
    return new <= old
