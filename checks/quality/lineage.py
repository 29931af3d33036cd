"""What checks found, as OpenLineage is told of it: assertions and metrics of the judged days."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from checks.quality.judgement import Judgement
from millrace.quality.finding import Finding
from resources.settings import settings_from_env

if TYPE_CHECKING:
    from lineage.assertions import Assertion, TableMetrics
    from lineage.runs import Enclosing


def tell(judgement: Judgement, part_of: "Enclosing", delta_version: int) -> None:
    """Put one check run into the outbox; never raises."""
    from lineage.assertions import emit_assertions

    emit_assertions(
        settings_from_env(),
        judgement.table,
        assertions(judgement),
        part_of=part_of,
        delta_version=delta_version,
        metrics=metrics(judgement),
    )


def assertions(judgement: Judgement) -> "list[Assertion]":
    """Return one assertion per day that broke a rule or could not be judged by it.

    A rule that held on all days is one assertion of no day, so that a range of years stays one
    event of moderate size.
    """
    from lineage.assertions import Assertion

    by_rule: dict[str, list[tuple[date | None, Finding]]] = {}
    for judged in judgement.days:
        for finding in judged.findings:
            by_rule.setdefault(finding.rule.name, []).append((judged.day, finding))
    told = []
    for found in by_rule.values():
        singled = [(day, f) for day, f in found if f.verdict != "passed"]
        if not singled:
            singled = [(None, found[-1][1])]
        told += [
            Assertion(
                rule=finding.rule.type,
                passed=finding.verdict == "passed",
                severity=finding.rule.severity,
                day=day,
                column=finding.column,
                expected=finding.expected,
                actual=finding.actual,
                reason=finding.reason if finding.verdict == "unknown" else "",
            )
            for day, finding in singled
        ]
    return told


def metrics(judgement: Judgement) -> "TableMetrics":
    """Return the counts of the judged days together; columns by the newest day that has them."""
    from lineage.assertions import ColumnMetrics, TableMetrics

    profiles = [judged.profile for judged in judgement.days]
    names = dict.fromkeys(name for profile in profiles for name in profile.columns)
    columns = {}
    for name in names:
        found = [p.columns[name] for p in profiles if name in p.columns]
        numbers = [c for c in found if c.kind == "number"]
        columns[name] = ColumnMetrics(
            nulls=sum(c.nulls for c in found),
            count=sum(c.rows for c in found),
            minimum=_of(min, [c.minimum for c in numbers]),
            maximum=_of(max, [c.maximum for c in numbers]),
        )
    return TableMetrics(rows=sum(p.rows for p in profiles), columns=columns)


def _of(choose: Callable[[Iterable[float]], float], values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None
