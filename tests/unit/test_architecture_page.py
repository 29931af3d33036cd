"""``docs/architecture.md`` names files and functions that are there, and all rooms."""

import re

from resources.settings import CHECKOUT

PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_path_on_the_page_is_there() -> None:
    paths = re.findall(r"`([\w./]+\.(?:py|java))`", PAGE)
    assert len(paths) > 40
    assert [path for path in paths if not (CHECKOUT / path).is_file() and "/" in path] == []


def test_what_answers_a_question_is_in_the_file_beside_it() -> None:
    rows = re.findall(r"^\| .*?`(\w+)`.* \| `([\w./]+\.py)` \|$", PAGE, re.MULTILINE)
    named = [(name, CHECKOUT / path) for name, path in rows if name not in {"q", "STALE"}]
    assert len(named) >= 4
    assert [n for n, path in named if not re.search(rf"\b{n}\b", path.read_text("utf-8"))] == []


def test_every_room_has_a_row() -> None:
    wheel = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    rooms = re.search(r"^packages = \[(.+)\]$", wheel, re.MULTILINE)
    assert rooms is not None
    listed = set(re.findall(r"^\| `(?:sdk/python/)?(\w+)/` \|", PAGE, re.MULTILINE))
    assert {room.strip(' "') for room in rooms[1].split(",")} | {"millrace"} == listed
