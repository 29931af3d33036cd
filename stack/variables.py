"""The settings' environment variables as an order carries them: absolute and complete."""

import os
from collections.abc import Mapping

from resources.settings import Settings
from stack.files import Order
from stack.parts import Part

VIEWS = "MILLRACE_VIEWS"

VARIABLES = (
    "MILLRACE_HOME",
    "MILLRACE_CACHE",
    VIEWS,
    "MILLRACE_DATA",
    "MILLRACE_LAKE",
    "MILLRACE_SPARK_REMOTE",
    "MILLRACE_KAFKA",
    "MILLRACE_FLINK_URL",
    "MILLRACE_STORE_URL",
    "MILLRACE_LINEAGE",
    "JAVA_HOME",
)
"""All that an order carries; one that is absent there is absent for the part."""


def environment_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Write settings as the environment from which the same settings are read again."""
    values = {
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
        "JAVA_HOME": environ.get("JAVA_HOME"),
    }
    return {name: value for name, value in values.items() if value}


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
