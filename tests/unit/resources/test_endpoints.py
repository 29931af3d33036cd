"""Where parts answer, also while their supervisor is starting them again."""

import json
import os
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from millrace.errors import EngineUnavailable
from resources import endpoints
from resources.endpoints import spark_remote, start_mark, store_url
from resources.settings import Settings, settings_from_env

DEAD = {"url": "sc://127.0.0.1:1", "pid": 1, "started": "another"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(settings_from_env({"MILLRACE_HOME": str(tmp_path)}), home=tmp_path)


def write(settings: Settings, name: str, document: object) -> None:
    fresh = settings.home / f"{name}.new"
    fresh.write_text(json.dumps(document), encoding="utf-8")
    fresh.replace(settings.home / name)


def supervise(settings: Settings, state: str) -> None:
    """Say that this very process keeps Spark and the store, which have just died."""
    own = {"pid": os.getpid(), "mark": start_mark(os.getpid())}
    record = {"state": state, "order": {"environment": {}, "request": 0}}
    parts = {"spark": record, "store": record}
    write(settings, "state.json", {"supervisor": own, "parts": parts})
    write(settings, "endpoints.json", {"spark": DEAD, "store": DEAD})


def test_a_spark_that_is_being_started_again_is_waited_for(settings: Settings) -> None:
    supervise(settings, "running")
    alive = {"url": "sc://127.0.0.1:2", "pid": os.getpid(), "started": start_mark(os.getpid())}
    timer = Timer(0.3, write, (settings, "endpoints.json", {"spark": alive}))
    timer.start()
    assert spark_remote(settings) == "sc://127.0.0.1:2"
    timer.join()


def test_what_is_being_started_is_not_to_be_started_by_hand(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "RESTART_WAIT_S", 0.05)
    supervise(settings, "starting")
    for ask in (spark_remote, store_url):
        with pytest.raises(EngineUnavailable) as told:
            ask(settings)
        assert told.value.fix == "its supervisor is starting it; run this again in a moment"


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_what_nobody_starts_is_to_be_started_by_hand(settings: Settings, state: str) -> None:
    supervise(settings, state)
    with pytest.raises(EngineUnavailable) as told:
        spark_remote(settings)
    assert told.value.fix == "millrace up spark"
