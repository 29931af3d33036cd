"""Pictures of pages as a person sees them, by a headless Chromium of the machine's own."""

import shutil
from collections.abc import Mapping
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_IDLE_MS = 15_000
_SETTLED_MS = 1_500


def browser() -> str | None:
    """Return the first browser on the PATH; None if there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def take(
    pages: Mapping[str, str],
    folder: Path,
    *,
    texts: Mapping[str, str],
    clicks: Mapping[str, str],
) -> dict[str, Path]:
    """Take one picture of each page.

    Args:
        pages: name of the picture to URL.
        folder: where ``<name>.png`` is written.
        texts: name of the picture to a text that must be seen first; the picture fails without.
        clicks: name of the picture to the metadata entry whose Markdown is opened before, if any;
            it must hold an image.
    """
    from playwright.sync_api import Error, sync_playwright

    taken = {}
    with sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        for name, url in pages.items():
            page.goto(url)
            page.get_by_text(texts[name]).first.wait_for(timeout=4 * _IDLE_MS)
            try:
                page.wait_for_load_state("networkidle", timeout=_IDLE_MS)
            except Error:
                # Pages that follow a run never fall silent.
                page.wait_for_timeout(_SETTLED_MS)
            if name in clicks:
                entry = page.locator("tr", has_text=clicks[name])
                entry.get_by_text("[Show Markdown]").first.click()
                page.locator("img[src^='data:image']").first.wait_for(timeout=_IDLE_MS)
            page.wait_for_timeout(_SETTLED_MS)
            taken[name] = folder / f"{name}.png"
            page.screenshot(path=str(taken[name]))
        chromium.close()
    return taken
