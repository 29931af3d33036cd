"""Engines own tables of forms, and what is in none of them fails when they are loaded."""

import pickle
import runpy
from dataclasses import replace
from importlib.util import find_spec
from types import MappingProxyType

import pytest

from millrace.aggregates import AGGREGATES, PARTIALS, Entry, Partial, Unsupported, check_forms
from millrace.errors import CompileError, SpecError
from millrace.types import INT32, INT64, STRING


class MadeUp(Partial):
    suffix = "made_up"


def _file(module: str) -> str:
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return found.origin


@pytest.mark.parametrize(
    ("module", "engine"),
    [("millrace.compile.spark", "Spark"), ("millrace.compile.flink_tiles", "Flink")],
)
def test_a_partial_without_a_form_fails_at_import_and_is_named(
    module: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millrace.aggregates.partials.PARTIALS", (*PARTIALS, MadeUp))
    with pytest.raises(CompileError) as caught:
        runpy.run_path(_file(module))
    assert caught.value.what == f"{engine} has no form of MadeUp"


def test_an_aggregate_that_the_kernel_has_no_form_of_fails_at_import_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up = replace(AGGREGATES["sum"], name="made_up")
    more = MappingProxyType({**AGGREGATES, "made_up": made_up})
    monkeypatch.setattr("millrace.aggregates.AGGREGATES", more)
    with pytest.raises(CompileError) as caught:
        runpy.run_path(_file("millrace.kernel.forms"))
    assert caught.value.what == "the kernel has no form of made_up"


def test_what_has_a_reason_needs_no_form_and_must_not_have_both() -> None:
    reason = Unsupported("it has no such thing", "use another")
    check_forms("X", ["a", "b"], {"a": 1}, {"b": reason})
    with pytest.raises(CompileError, match="X has both a form and a reason"):
        check_forms("X", ["a"], {"a": 1}, {"a": reason})


@pytest.mark.parametrize("entry", AGGREGATES.values(), ids=list(AGGREGATES))
def test_a_bound_aggregate_pickles_and_is_one_value(entry: Entry) -> None:
    given = dict(entry.example.parameters)
    bound = entry.bind(INT64, given)
    assert pickle.loads(pickle.dumps(bound)) == bound  # noqa: S301 - made here
    assert hash(bound) == hash(entry.bind(INT64, given))
    assert bound != entry.bind(INT32, given)


def test_what_an_aggregate_does_not_take_cannot_be_bound() -> None:
    with pytest.raises(SpecError, match="sum of a string has no meaning"):
        AGGREGATES["sum"].bind(STRING)
    with pytest.raises(SpecError, match="sum takes no k"):
        AGGREGATES["sum"].bind(INT64, {"k": 3})
