"""A code location over offline tables that compute nothing; its folder comes by the environment."""

import os
from pathlib import Path

import dagster as dg

from jobs.definitions import build_definitions
from resources.declarations import plan_of
from resources.settings import settings_from_env
from tests.support.fake_offline import FileOffline


@dg.definitions
def defs() -> dg.Definitions:
    """Return the platform's own definitions, with the tables replaced."""
    folder = Path(os.environ["MILLRACE_VIEWS"])
    return build_definitions(plan_of([folder]), settings_from_env(), offline=FileOffline())
