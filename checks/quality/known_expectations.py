"""``python -m checks.quality.known_expectations``: what Great Expectations offers, for the language to know.

Declarations are validated without it, since importing it takes seconds; so its expectations and their
arguments are kept as a module of the language, written here and held against the installed release by
a test.
"""

import sys
from pathlib import Path

import millrace

_MODULE = Path(millrace.__file__).parent / "expectation_types.py"
_NEEDS_SQL = frozenset(
    {
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table",
        "unexpected_rows_expectation",
    }
)
"""Frames of rows and of metrics, which is what is judged here, cannot be queried."""

_NOT_TO_DECLARE = frozenset({"batch_id", "library_metadata"})

_HEAD = '''"""The expectations of Great Expectations {version}, written by ``checks.quality.known_expectations``."""

from collections.abc import Mapping
from types import MappingProxyType

# fmt: off
EXPECTATIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType({{
'''
_TAIL = '''})
"""By name: the arguments that must be given, and those that may be."""
'''


def written() -> str:
    """Return the text of ``millrace.expectation_types`` for the installed release."""
    import great_expectations
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    lines = []
    for name in sorted({*list_registered_expectation_implementations()} - _NEEDS_SQL):
        fields = get_expectation_impl(name).__fields__
        own = [f for f in fields if f not in {*Expectation.__fields__, *_NOT_TO_DECLARE}]
        required = tuple(field for field in own if fields[field].required)
        optional = tuple(field for field in own if not fields[field].required)
        lines.append(f"    {name!r}: ({required!r}, {optional!r}),\n".replace("'", '"'))
    return _HEAD.format(version=great_expectations.__version__) + "".join(lines) + _TAIL


def main() -> None:
    """Write the module."""
    _MODULE.write_text(written(), encoding="utf-8")
    sys.stdout.write(f"{_MODULE} written\n")


if __name__ == "__main__":
    main()
