"""The rules of declared checks: a known type, a column it can judge, arguments it takes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from millrace.check_types import (
    CHECK_TYPES,
    COMMON,
    METRICS,
    MODES,
    SEVERITIES,
    ArgumentKind,
    CheckType,
)
from millrace.durations import parse_duration
from millrace.errors import nearest
from millrace.faults import FaultList, is_read
from millrace.plan import Output
from millrace.rules.expectations import check_expectation
from millrace.rules.literals import LiteralFault, literal
from millrace.rules.sources import Columns
from millrace.rules.values import parse_day
from millrace.spec import Check, FeatureView
from millrace.types import DataType

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "severity": SEVERITIES, "metric": METRICS, "mode": MODES,
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """What the checks of a view may judge.

    Attributes:
        features: those without fault, by name.
        columns: of the source; None if it is not known.
    """

    view: FeatureView
    features: Mapping[str, Output]
    columns: Columns | None

    def type_of(self, check: Check) -> DataType | None:
        """Return the type of what a check judges; None where it is not known, or a table."""
        feature, column = check.arguments.get("feature"), check.arguments.get("column")
        if isinstance(feature, str):
            return self.features[feature].type if feature in self.features else None
        return None if self.columns is None else self.columns.lookup(str(column))


def check_checks(judged: Judged, faults: FaultList) -> None:
    """Add a fault for everything in a view's checks that means nothing."""
    first: dict[tuple[str, str, str], Check] = {}
    for check in judged.view.checks:
        if not is_read(check.type):
            continue
        known = CHECK_TYPES.get(check.type)
        if known is None:
            faults.add(
                check.where.at("type"),
                f"there is no check of the type {check.type!r}",
                nearest(check.type, list(CHECK_TYPES)),
            )
            continue
        before = len(faults)
        _check_column(check, known, judged, faults)
        for name, value in check.arguments.items():
            _check_argument(check, known, name, value, faults)
        judged_type = judged.type_of(check)
        if judged_type is not None and judged_type.kind in known.kinds:
            _check_values(check, judged_type, faults)
        check_expectation(check, judged.type_of(check), faults)
        if len(faults) == before:
            _check_together(check, known, faults)
            _check_once(check, first, judged, faults)


def _check_column(check: Check, known: CheckType, judged: Judged, faults: FaultList) -> None:
    feature, column = check.arguments.get("feature"), check.arguments.get("column")
    label = f"the check {check.type!r}"
    if feature is not None and column is not None:
        faults.add(
            check.where.at("column"),
            f"{label} names a feature, {feature!r}, and a column, {column!r}",
            "keep feature: for features/<view>, or column: for events/<source>",
        )
    elif known.of == "table" and feature is not None:
        faults.add(
            check.where.at("feature"),
            f"{label} judges the table, not the feature {feature!r}",
            "remove feature",
        )
    elif known.of == "column" and feature is None and column is None:
        faults.add(
            check.where,
            f"{label} names no feature",
            f"add feature: {judged.view.features[0].name}, for one"
            if judged.view.features
            else "add feature: …",
        )
    elif feature is not None:
        _check_feature(check, known, str(feature), judged, faults)
    elif column is not None:
        _check_source_column(check, known, str(column), judged, faults)


def _check_feature(
    check: Check, known: CheckType, name: str, judged: Judged, faults: FaultList
) -> None:
    names = [f.name for f in judged.view.features]
    if name not in names and all(map(is_read, names)):
        faults.add(
            check.where.at("feature"),
            f"the check {check.type!r} names {name!r}, which is no feature of {judged.view.name!r}",
            nearest(name, names),
        )
    elif name in judged.features:
        _check_kind(check, known, "feature", name, judged.features[name].type, faults)


def _check_source_column(
    check: Check, known: CheckType, name: str, judged: Judged, faults: FaultList
) -> None:
    columns = judged.columns
    if columns is None:
        return
    found = columns.lookup(name)
    if columns.is_missing(name):
        faults.add(
            check.where.at("column"),
            f"the check {check.type!r} names {name!r}, which is no column of source "
            f"{judged.view.source!r}",
            columns.nearest(name),
        )
    elif found is not None and known.of != "table":
        _check_kind(check, known, "column", name, found, faults)


def _check_kind(
    check: Check, known: CheckType, role: str, name: str, found: DataType, faults: FaultList
) -> None:
    if known.kinds and found.kind not in known.kinds:
        faults.add(
            check.where.at(role),
            f"the check {check.type!r} cannot judge {name!r}, a {found}",
            f"it judges {', '.join(sorted(known.kinds))}",
        )


def _check_argument(
    check: Check, known: CheckType, name: str, value: Any, faults: FaultList
) -> None:
    kind = known.arguments.get(name) or COMMON.get(name)
    where = check.where.at(name)
    if kind is None:
        faults.add(
            where,
            f"a {check.type} check takes no {name!r}",
            nearest(name, [*known.arguments, *COMMON]),
        )
        return
    if not is_read(value):
        return
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        faults.add(
            where,
            f"the check {check.type!r} has the {name} {value!r}",
            f"write {name}: {', or '.join(choices)}",
        )
        return
    for what, fix in _faults_of(kind, value):
        faults.add(where, f"{name} of the check {check.type!r} {what}", fix)


def _check_values(check: Check, type_: DataType, faults: FaultList) -> None:
    """The values of an ``unseen`` are of the type of the column that they are looked for in."""
    values = check.arguments.get("values")
    if not isinstance(values, (list, tuple)):
        return
    for value in values:
        try:
            literal(value, type_)
        except LiteralFault as fault:
            where = check.where.at("values")
            faults.add(where, f"a value of the check {check.type!r} {fault.what}", fault.fix)


def _faults_of(kind: ArgumentKind, value: Any) -> Iterator[tuple[str, str]]:
    if kind in {"number", "share", "count"}:
        yield from _number_faults(kind, value)
    elif kind == "duration":
        if not _is_duration(value):
            yield f"is {value!r}, which is no duration", "write 90s, 15m or 2h, for one"
    elif kind == "period":
        yield from _period_faults(value)
    elif kind == "text":
        if not isinstance(value, str) or not value:
            yield f"is {value!r}, which is no text", "write one word, or quote it"
    elif kind == "list":
        if not isinstance(value, (list, tuple)) or not value:
            yield f"is {value!r}, which is no list", "write [a, b]"
    elif not isinstance(value, Mapping):
        yield f"is {value!r}, which is no mapping", "write {name: value}"


def _number_faults(kind: ArgumentKind, value: Any) -> Iterator[tuple[str, str]]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        yield f"is {value!r}, which is no number", "write a plain number: 0.2"
    elif kind == "share" and not 0 <= value <= 1:
        yield f"is {value}, which is no share", "a share lies between 0 and 1: 0.05 is 5 %"
    elif kind == "count" and (value < 0 or value != int(value)):
        yield f"is {value}, which is no count", "write a whole number, 0 or more"


def _period_faults(value: Any) -> Iterator[tuple[str, str]]:
    fix = "write {start: 2024-01-01, end: 2024-02-01}; the end is not in it"
    if not isinstance(value, Mapping) or set(value) != {"start", "end"}:
        yield f"is {value!r}, not start and end", fix
        return
    start, end = (parse_day(value[name]) for name in ("start", "end"))
    if start is None or end is None:
        yield f"runs from {value['start']!r} to {value['end']!r}, which are no days", fix
    elif start >= end:
        yield f"runs from {start} to {end}, which holds no day", fix


def _is_duration(value: Any) -> bool:
    try:
        return isinstance(value, str) and parse_duration(value) >= 0
    except ValueError:
        return False


def _check_together(check: Check, known: CheckType, faults: FaultList) -> None:
    given = check.arguments
    if known.required and not any(name in given for name in known.required):
        faults.add(
            check.where,
            f"the check {check.type!r} has no {' and no '.join(known.required)}",
            f"add {known.required[0]}: …",
        )
    low, high = given.get("min"), given.get("max")
    if low is not None and high is not None and low > high:
        faults.add(
            check.where.at("min"),
            f"min of the check {check.type!r} is {low}, above max, {high}",
            "swap them",
        )


def _check_once(
    check: Check,
    first: dict[tuple[str, str, str], Check],
    judged: Judged,
    faults: FaultList,
) -> None:
    given = check.arguments
    of = str(given.get("feature") or f"column {given.get('column', '')}")
    earlier = first.setdefault(
        (check.type, of, given.get("metric") or given.get("expect") or "psi"), check
    )
    if earlier is not check:
        what = given.get("feature") or given.get("column") or "the table"
        faults.add(
            check.where,
            f"view {judged.view.name!r} has the check {check.type!r} of {what} already, at "
            f"{earlier.where}",
            "keep one of the two",
        )
