"""The public names of the language, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import millrace
from millrace import authoring, spec

PUBLIC = [
    "BatchSource", "Check", "Column", "Entity", "Fault", "FeatureService", "FeatureView",
    "PlatformError", "Schedule", "Source", "SpecError", "StreamSource", "approx_distinct", "avg", "count",
    "derived", "distinct", "first", "first_k", "last", "last_k", "max", "median", "min", "mode", "percentile",
    "session", "stddev", "sum", "time_since_first", "time_since_last", "top_k", "tumbling",
    "variance",
]  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_the_public_names_are_these() -> None:
    assert millrace.__all__ == PUBLIC == dir(millrace)


def test_every_public_name_is_there() -> None:
    for name in millrace.__all__:
        assert getattr(millrace, name) is not None


def test_authors_get_all_that_authoring_offers() -> None:
    assert set(authoring.PUBLIC_NAMES) == set(PUBLIC) - {"Fault", "PlatformError", "SpecError"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'millrace' has no attribute 'FeatureVew'"):
        millrace.FeatureVew  # noqa: B018


def test_constructors_return_the_records_of_the_spec() -> None:
    assert isinstance(millrace.Entity("e", "k", "int64"), spec.Entity)


def test_importing_the_package_loads_nothing_else() -> None:
    assert not loaded_by("import millrace") & {"numpy", "sqlglot", "yaml", "millrace.authoring"}


def test_declaring_needs_no_engine() -> None:
    heavy = {"numpy", "sqlglot", "pyarrow", "pandas", "pyspark", "deltalake", "dagster"}
    assert not loaded_by("from millrace import FeatureView") & heavy


def test_the_types_of_a_checker_are_the_names_of_the_package() -> None:
    assert millrace.__file__ is not None
    tree = ast.parse(Path(millrace.__file__).read_text(encoding="utf-8"))
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("millrace.")
        for alias in node.names
    ]
    assert sorted(imported) == PUBLIC
