"""Where the pages of these docs are: ``docs/runbooks.md#late`` as a link that one can click."""

from resources.settings import CHECKOUT

CHECKOUT_FILES = (CHECKOUT / "docs").as_uri()
"""The folder in the checkout that this code runs from."""

_FOLDER = "docs/"


def page_url(page: str, base: str | None) -> str:
    """Return where a page of the folder ``docs`` is served; what is none, or is served nowhere, as it is.

    >>> page_url("docs/runbooks.md#late", "https://docs.example.com/millrace")
    'https://docs.example.com/millrace/runbooks.md#late'
    >>> page_url("https://wiki.example.com/late", "https://docs.example.com")
    'https://wiki.example.com/late'
    """
    is_page = page.startswith(_FOLDER) and base
    return f"{base}/{page.removeprefix(_FOLDER)}" if is_page else page
