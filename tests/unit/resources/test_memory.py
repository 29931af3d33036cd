"""Joins get pages of the usual size, and nothing else does."""

import re
import sys
from pathlib import Path

import pytest

from resources.memory import small_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its pages")


def _gets_huge_pages() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^THP_enabled:\s+(\d)$", status, re.MULTILINE)
    assert found is not None
    return found[1] == "1"


def test_huge_pages_are_off_for_as_long_as_the_block_lasts() -> None:
    before = _gets_huge_pages()
    with small_pages():
        assert not _gets_huge_pages()
        with small_pages():
            assert not _gets_huge_pages()
        assert not _gets_huge_pages()
    assert _gets_huge_pages() == before


def test_what_fails_inside_gets_them_back() -> None:
    before = _gets_huge_pages()
    with pytest.raises(ValueError, match="inside"), small_pages():
        raise ValueError("inside")
    assert _gets_huge_pages() == before
