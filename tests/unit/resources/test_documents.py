"""The documents hold together: links lead somewhere, and what they declare is right."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.errors import SpecError
from millrace.plan import Plan
from resources.configuration.model import TYPES, settings_there_are
from resources.declarations import plan_of
from resources.settings import CHECKOUT, profiles_with_faults, settings_from_env

DOCUMENTS = sorted(
    [
        *CHECKOUT.glob("*.md"),
        *(CHECKOUT / "docs").rglob("*.md"),
        *CHECKOUT.glob("benchmarks/**/*.md"),
    ]
)
FLIGHTS = CHECKOUT / "feature_assets" / "views"

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CHECKOUT)) for path in paths]


def prose(document: Path) -> str:
    return _FENCED.sub("", document.read_text(encoding="utf-8"))


def blocks(document: Path, language: str) -> list[str]:
    found = _FENCED.findall(document.read_text(encoding="utf-8"))
    return [text for _, of, text in found if of == language]


def links(document: Path) -> Iterator[tuple[Path, str]]:
    for target in _LINK.findall(prose(document)):
        path, _, anchor = target.partition("#")
        if "://" not in target and not target.startswith("mailto:"):
            yield (document.parent / path).resolve() if path else document, anchor


def anchors(document: Path) -> set[str]:
    headings = _HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_relative_link_resolves(document: Path) -> None:
    broken = [
        f"{target}#{anchor}"
        for target, anchor in links(document)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert not broken


def test_every_document_is_reachable_from_the_readme() -> None:
    reached, frontier = set[Path](), [CHECKOUT / "README.md"]
    while frontier:
        document = frontier.pop()
        if document not in reached and document.suffix == ".md" and document.exists():
            reached.add(document)
            frontier.extend(target for target, _ in links(document))
    assert not [n for n in names(DOCUMENTS) if CHECKOUT / n not in reached]


def planned(folder: Path, name: str, text: str) -> Plan:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return plan_of([FLIGHTS, path])


def test_the_first_view_of_the_readme_is_that_of_the_tutorial(tmp_path: Path) -> None:
    readme, tutorial = (
        next(b for b in blocks(CHECKOUT / name, "yaml") if "route_departures" in b)
        for name in ("README.md", "docs/first-view.md")
    )
    assert readme == tutorial
    assert len(readme.splitlines()) == 10
    view = planned(tmp_path, "route_departures.yaml", readme).view("route_departures")
    assert view.join_keys == ("origin", "dest")


def test_the_python_of_the_tutorial_means_what_its_yaml_means(tmp_path: Path) -> None:
    tutorial = CHECKOUT / "docs" / "first-view.md"
    in_yaml = next(b for b in blocks(tutorial, "yaml") if "route_departures" in b)
    in_python = next(b for b in blocks(tutorial, "python") if "FeatureView(" in b)
    by_yaml = planned(tmp_path, "view.yaml", in_yaml).view("route_departures")
    by_python = planned(tmp_path, "view.py", in_python).view("route_departures")
    assert by_python.fingerprint == by_yaml.fingerprint
    assert [f.name for f in by_python.features] == [f.name for f in by_yaml.features]


def test_the_three_faults_of_the_tutorial_are_found_at_once(tmp_path: Path) -> None:
    tutorial = CHECKOUT / "docs" / "first-view.md"
    view = next(b for b in blocks(tutorial, "yaml") if "route_departures" in b)
    view = view.replace("dep_delay_min", "dep_delay_mn").replace("route_", "airport_")
    view = view.replace("windows: [1h, 7d]", "windows: [1h, 90m], hop: 1h")
    with pytest.raises(SpecError) as refused:
        planned(tmp_path, "view.yaml", view)
    text = str(refused.value)
    assert "'dep_delay_min'" in text
    assert "airport_departures" in text
    assert "90m" in text


def test_the_rooms_of_the_readme_are_there() -> None:
    rooms = re.findall(r"^\| \[([\w/]+)\]\(", prose(CHECKOUT / "README.md"), re.MULTILINE)
    assert len(rooms) >= 9
    assert not [room for room in rooms if not (CHECKOUT / room).is_dir()]


def test_the_settings_page_lists_every_setting_as_it_is() -> None:
    rows = [
        f"| `{one.key}` | {TYPES[one.kind]} | {one.default} | `{one.variable}` | {one.describes} |"
        for one in settings_there_are().values()
    ]
    text = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `[a-z_.]+` \|.*$", text, re.MULTILINE) == rows, "\n".join(rows)


def test_the_settings_files_of_the_docs_are_right(tmp_path: Path) -> None:
    files = blocks(CHECKOUT / "docs" / "settings.md", "toml")
    assert files
    for number, text in enumerate(files):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        env = {"MILLRACE_CONFIG": str(path)}
        settings_from_env(env)
        assert profiles_with_faults(env) == []
