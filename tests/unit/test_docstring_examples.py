"""The examples in docstrings are run, so that none of them lies."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from resources.settings import CHECKOUT

ROOMS = (
    "sdk/python/millrace",
    *("resources", "feature_assets", "streaming", "checks", "jobs", "serving", "stack", "cli"),
)


def modules_with_examples() -> list[str]:
    return [
        _module(path.relative_to((CHECKOUT / room).parent))
        for room in ROOMS
        for path in sorted((CHECKOUT / room).rglob("*.py"))
        if ">>> " in path.read_text()
    ]


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_a_module_hold(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(name))
    assert attempted > 0
    assert failed == 0
