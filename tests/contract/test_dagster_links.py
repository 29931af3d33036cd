"""The addresses that alerts link to are ones that the webserver's own pages make."""

from pathlib import Path

import dagster_webserver
import pytest

PAGES = Path(dagster_webserver.__file__).parent / "webapp" / "build"


@pytest.mark.parametrize(
    "made", ['view:"partitions",partition:', 'view:"checks",checkDetail:', 'queryKey:"checkDetail"']
)
def test_the_pages_know_what_the_links_name(made: str) -> None:
    scripts = PAGES.rglob("*.js")
    assert any(made in script.read_text(encoding="utf-8") for script in scripts)
