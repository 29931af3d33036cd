"""``python -m millrace.reference``: every key of YAML and every builder of Python, as a page.

Made of the loader's table of keys and of the builders' own signatures and docstrings.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from millrace import aggregations, authoring, derivations
from millrace.check_types import CHECK_TYPES, COMMON
from millrace.load.keys import (
    BATCH,
    COLUMN,
    DERIVED,
    ENTITY,
    FEATURE,
    FILE,
    SCHEDULE,
    SERVICE,
    SOURCE,
    STREAM,
    VIEW,
    WINDOWS,
    Key,
    Keys,
)
from millrace.types import KINDS

_HEAD = """\
# Reference

Every key of a declaration in YAML and every builder in Python. This page is written by `python -m
millrace.reference > docs/reference.md`. What the keys mean together: [declarations](declarations.md),
[the window contract](window-contract.md), [expressions](expressions.md), [checks](checks.md).
Editors complete and check YAML by the schema that `millrace schema` prints and
[millrace.schema.json](millrace.schema.json) is; a line at the head of a file names it:

    # yaml-language-server: $schema=../docs/millrace.schema.json

"""

_RECORDS = (
    ("A file", FILE),
    ("sources", SOURCE),
    ("columns", COLUMN),
    ("batch", BATCH),
    ("stream", STREAM),
    ("schedule", SCHEDULE),
    ("entities", ENTITY),
    ("feature_views", VIEW),
    ("features", FEATURE),
    ("derived features", DERIVED),
    *WINDOWS.items(),
    ("feature_services", SERVICE),
)
_BUILDERS = (
    "Source", "Column", "BatchSource", "StreamSource", "Schedule", "Entity", "FeatureView", "Check",
    "FeatureService",
)  # fmt: skip
_WINDOW = ", ".join(["duration", "`lifetime`", *(f"[{kind}](#{kind})" for kind in WINDOWS)])
_STEPS = ("over", "named", "hop", "offset", "default", "described")
_FORMS = {
    "version": "text", "name": "name", "text": "text", "type": "type", "duration": "duration",
    "window": _WINDOW, "day": "day", "time": "time", "number": "number", "flag": "`true` or `false`",
    "value": "value", "columns": "mapping", "tags": "mapping", "expression": "expression",
}  # fmt: skip


def page() -> str:
    """Return the page, in Markdown."""
    return _HEAD + "".join([*_yaml(), *_checks(), *_python()]).rstrip("\n") + "\n"


def _yaml() -> Iterator[str]:
    types = ", ".join(f"`{kind}`" for kind in KINDS if kind != "decimal")
    yield "## YAML\n\n"
    yield (
        "A name is small letters, digits and `_`, a letter first, at most 63. A duration is a whole "
        "number and a unit: `500ms`,\n`10s`, `5m`, `1h`, `7d`. A day is `YYYY-MM-DD`, UTC. Types are "
        f"{types}, `decimal(p,s)` and `vector(n)`.\n\n"
    )
    for title, keys in _RECORDS:
        heading = title if " " in title else f"`{title}`"
        yield f"### {heading}\n\n| key | is | meaning |\n|---|---|---|\n"
        yield "".join(_row(name, key) for name, key in keys.keys.items()) + "\n"
        yield _groups(keys)


def _row(name: str, key: Key) -> str:
    required = ", required" if key.is_required else ""
    default = f". Default: {key.default}" if key.default else ""
    return f"| `{name}` | {_is(name, key)}{required} | {_cell(key.meaning + default)} |\n"


def _is(name: str, key: Key) -> str:
    if key.choices:
        return " or ".join(f"`{choice}`" for choice in key.choices)
    if key.form == "checks":
        return "list of [checks](#checks)"
    what = f"[{name}](#{name})" if isinstance(key.form, Keys) else _FORMS[key.form]
    return f"list of {what}" if key.is_list else what


def _groups(keys: Keys) -> str:
    said = [f"exactly one of {_names(group)}" for group in keys.exactly_one]
    said += [f"at least one of {_names(group)}" for group in keys.at_least_one]
    said += [f"at most one of {_names(group)}" for group in keys.at_most_one]
    other = f"With `{keys.other[0]}` it is {keys.other[1].of}, below.\n\n" if keys.other else ""
    return other + (f"There must be {' and '.join(said)}.\n\n" if said else "")


def _names(names: tuple[str, ...]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _checks() -> Iterator[str]:
    common = ", ".join(f"`{name}`" for name in COMMON)
    yield "### `checks`\n\n"
    yield f"Every check has a `type` and may have {common}; what else it takes:\n\n"
    yield "| type | judges | arguments |\n|---|---|---|\n"
    for name, check in CHECK_TYPES.items():
        taken = ", ".join(f"`{a}` ({form})" for a, form in check.arguments.items())
        yield f"| `{name}` | {_cell(check.meaning)} | {taken} |\n"
    yield "\n"


def _python() -> Iterator[str]:
    yield "## Python\n\n"
    yield "Everything is imported from `millrace`.\n\n"
    for name in _BUILDERS:
        yield from _callable(name, getattr(authoring, name))
    yield "### Aggregates\n\n"
    yield (
        "Each takes a column, or an expression by `expr`, and the steps below; iterating over it "
        "gives a feature for each\nwindow.\n\n| aggregate | |\n|---|---|\n"
    )
    for name in aggregations.__all__:
        if name not in {"Aggregation", *aggregations.WINDOWS}:
            function = getattr(aggregations, name)
            yield f"| `{name}{_signature(function)}` | {_cell(_summary(function))} |\n"
    yield "\n"
    yield from _callable("derived", derivations.derived)
    yield "Its steps are `named`, `default` and `described`.\n\n"
    for name in aggregations.WINDOWS:
        yield from _callable(name, getattr(aggregations, name))
    for name in _STEPS:
        yield from _callable(f".{name}", getattr(aggregations.Aggregation, name))


def _callable(name: str, function: Any) -> Iterator[str]:
    yield f"### `{name}`\n\n```text\n{name}{_signature(function)}\n```\n\n"
    text = inspect.cleandoc(function.__doc__ or "").partition("\n\nRaises:")[0]
    yield text.replace("``", "`") + "\n\n"


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    own = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in signature.parameters.values()
        if p.name != "self"
    ]
    empty = inspect.Signature.empty
    return str(signature.replace(parameters=own, return_annotation=empty))


def _summary(function: Any) -> str:
    return (function.__doc__ or "").partition("\n")[0].replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(page())
