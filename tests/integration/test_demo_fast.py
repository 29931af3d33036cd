"""The demo runs to its end on real data, and holds."""

import json
import os
from pathlib import Path

import pytest

from resources.settings import settings_from_env
from tests.conftest import run_millrace

pytestmark = pytest.mark.services


def test_the_fast_demo_proves_its_claims_and_stops_what_it_started(tmp_path: Path) -> None:
    env = {**os.environ, "MILLRACE_HOME": str(tmp_path), "COLUMNS": "160"}
    env.pop("MILLRACE_LAKE", None)
    shown = run_millrace("demo", "--fast", "--down", env=env).stdout
    assert "420 of 420 partitions" in shown
    assert "8,255 cancelled" in shown
    assert shown.count("holds") == 9
    assert "FAILS" not in shown
    lake = Path(settings_from_env(env).lake)
    assert (lake / "features" / "airport_departures" / "v1" / "_delta_log").is_dir()
    parts = json.loads(run_millrace("status", "--json", env=env).stdout)["parts"]
    assert parts["dagster"]["state"] == "stopped"
