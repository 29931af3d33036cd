"""The rules of declared expectations: one that Great Expectations has, with arguments it takes."""

from collections.abc import Mapping
from typing import Any

from millrace.errors import nearest
from millrace.expectation_types import EXPECTATIONS
from millrace.faults import FaultList, is_read
from millrace.rules.literals import LiteralFault, literal
from millrace.spec import Check
from millrace.types import DataType

_OF_VECTORS = (
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_values_to_be_null",
    "expect_column_values_to_not_be_null",
)


def check_expectation(check: Check, type_: DataType | None, faults: FaultList) -> None:
    """Add a fault for what Great Expectations would refuse in a check of type ``expectation``.

    ``type_`` is that of the column that the check names, if it is known.
    """
    expect, given = check.arguments.get("expect"), check.arguments.get("arguments", {})
    if check.type != "expectation" or not isinstance(expect, str) or not is_read(expect):
        return
    if expect not in EXPECTATIONS:
        faults.add(
            check.where.at("expect"),
            f"{expect!r} is no expectation that can be judged here",
            nearest(expect, list(EXPECTATIONS)),
        )
        return
    if not isinstance(given, Mapping):
        return
    required, optional = EXPECTATIONS[expect]
    where = check.where.at("arguments")
    for name in given:
        if name not in (*required, *optional):
            hint = nearest(name, [*required, *optional])
            faults.add(where, f"{expect} takes no {name!r}", hint)
    # Over rows, the column is the one that the check names unless another is given.
    is_rows = check.arguments.get("mode") == "rows"
    is_named = is_rows and bool({"feature", "column"} & set(check.arguments))
    for name in required:
        if name not in given and not (name == "column" and is_named):
            faults.add(where, f"{expect} needs {name}", f"add {name}: … to its arguments")
    if is_rows and "column" not in given and type_ is not None:
        if type_.kind == "vector" and expect not in _OF_VECTORS:
            what = f"{expect} cannot judge a {type_}"
            faults.add(
                check.where.at("expect"), what, f"of a vector there are {', '.join(_OF_VECTORS)}"
            )
            return
        _check_value_set(check, given.get("value_set"), type_, faults)


def _check_value_set(check: Check, given: Any, type_: DataType, faults: FaultList) -> None:
    """Great Expectations finds no text among numbers, and no number among texts."""
    if not isinstance(given, (list, tuple)) or type_.kind in {"timestamp", "bytes"}:
        return
    where = check.where.at("arguments")
    for value in given:
        is_number = isinstance(value, (int, float))
        try:
            # Elsewhere a number may stand for its text; here it would be handed on as a number.
            literal(None if is_number and type_.kind == "string" else value, type_)
        except LiteralFault as fault:
            faults.add(where, f"a value of {check.arguments['expect']} {fault.what}", fault.fix)
