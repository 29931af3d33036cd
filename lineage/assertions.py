"""What checks found, as lineage: a run that read a table, with its assertions and metrics.

OpenLineage hangs assertions on the *input* of a run, so a check is a job of its own,
``check/<table>``, which reads the version of the table that it judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from lineage import datasets, facets
from lineage.datasets import Dataset
from lineage.emitter import Emitter
from lineage.quiet import quietly
from lineage.runs import Enclosing, Work
from resources.endpoints import store_url
from resources.settings import Settings

Severity = Literal["error", "warn"]


@dataclass(frozen=True)
class Assertion:
    """One rule's verdict on one day of a table.

    Attributes:
        rule: type of the rule: ``null_rate``, ``row_count``, …
        passed: False if the rule was broken, whatever its severity.
        severity: ``error`` or ``warn``: how loud a finding is.
        day: the partition that was judged; None for the table as a whole.
        column: None for a rule about rows.
        expected: the limits in words, such as ``at most 0.02``.
        actual: the value in words.
        reason: why there is no verdict (too little history): reported as skipped. Empty otherwise.
    """

    rule: str
    passed: bool
    severity: Severity
    day: date | None = None
    column: str | None = None
    expected: str = ""
    actual: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ColumnMetrics:
    """What a profile knows of a column over the judged days; None where it does not say."""

    nulls: int | None = None
    distinct: int | None = None
    count: int | None = None
    total: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    quantiles: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TableMetrics:
    """What a profile knows of a table over the judged days."""

    rows: int | None = None
    bytes: int | None = None
    columns: Mapping[str, ColumnMetrics] = field(default_factory=dict)


@quietly
def emit_assertions(
    settings: Settings,
    table: str,
    assertions: Sequence[Assertion],
    *,
    part_of: Enclosing | None = None,
    delta_version: int | None = None,
    metrics: TableMetrics | None = None,
    name: str = "check",
) -> None:
    """Tell what the checks of one table found; call it once per table and run of checks.

    START and COMPLETE of the run ``<name>/<table>`` are written to the outbox. The run is complete
    also if rules were broken: checking went well, and what it found stands in ``test`` and
    ``dataQualityAssertions``. Never raises; a failure is logged.

    Args:
        settings: whose outbox and lake.
        table: name under the lake, such as ``events/card_transactions`` or
            ``features/customer_spend/v1``.
        assertions: of all judged days and rules; nothing is told if there are none.
        part_of: the Dagster run, from ``lineage.builds.enclosing(context)``; None outside
            of one.
        delta_version: the version that was judged; None if it is not known.
        metrics: of the judged days together.
        name: what tells several check runs of one table in one Dagster run apart.
    """
    emitter = Emitter(settings)
    if assertions and emitter.is_on:
        read = datasets.table(settings, table, delta_version=delta_version)
        _emit(emitter, f"{name}/{table}", read, assertions, part_of, metrics)


@quietly
def emit_online_assertions(
    settings: Settings,
    view: str,
    version: str,
    assertions: Sequence[Assertion],
    *,
    part_of: Enclosing | None = None,
    name: str = "check",
) -> None:
    """Tell what checks found of the values that are served of a view, see ``emit_assertions``."""
    emitter = Emitter(settings)
    if assertions and emitter.is_on:
        read = datasets.online_view(store_url(settings), view, version)
        _emit(emitter, f"{name}/online/{view}", read, assertions, part_of, None)


def _emit(
    emitter: Emitter,
    job: str,
    read: Dataset,
    assertions: Sequence[Assertion],
    part_of: Enclosing | None,
    metrics: TableMetrics | None,
) -> None:
    days = sorted({a.day for a in assertions if a.day is not None})
    found = facets.assertions([_assertion(a) for a in assertions if not a.reason])
    judged = read.with_input_facets(
        {
            "dataQualityAssertions": found,
            **({"subset": facets.input_days(days)} if days else {}),
            **({"dataQualityMetrics": _metrics(metrics)} if metrics else {}),
        }
    )
    work = Work.of(
        job,
        datetime.now(tz=UTC),
        part_of=part_of,
        job_facets={"jobType": facets.job_type("CHECK")},
        run_facets={"nominalTime": facets.nominal_days(days)} if days else {},
        inputs=[read],
    )
    emitter.start(work)
    tests = facets.tests([_test(a) for a in assertions])
    emitter.end(work, "COMPLETE", run_facets={"test": tests}, inputs=[judged])


def _said(assertion: Assertion) -> dict[str, Any]:
    params = {"day": assertion.day.isoformat()} if assertion.day else None
    return {
        "severity": assertion.severity,
        "expected": assertion.expected or None,
        "actual": assertion.actual or None,
        "params": params,
    }


def _assertion(assertion: Assertion) -> dict[str, Any]:
    return {
        "assertion": assertion.rule,
        "success": assertion.passed,
        "column": assertion.column,
        "name": _name(assertion),
        **_said(assertion),
    }


def _test(assertion: Assertion) -> dict[str, Any]:
    said = _said(assertion)
    if assertion.column is not None:
        said["params"] = {**(said["params"] or {}), "column": assertion.column}
    status = "skip" if assertion.reason else "pass" if assertion.passed else "fail"
    return {
        "name": _name(assertion),
        "status": status,
        "type": assertion.rule,
        "description": assertion.reason or None,
        **said,
    }


def _name(assertion: Assertion) -> str:
    """Return a name that is unique in its run: rule, column, day."""
    parts = (assertion.rule, assertion.column, assertion.day and assertion.day.isoformat())
    return "/".join(part for part in parts if part)


def _metrics(metrics: TableMetrics) -> Any:
    return facets.input_metrics(
        metrics.rows,
        metrics.bytes,
        {
            name: {
                "nullCount": column.nulls,
                "distinctCount": column.distinct,
                "sum": column.total,
                "count": column.count,
                "min": column.minimum,
                "max": column.maximum,
                "quantiles": {str(q): v for q, v in column.quantiles.items()} or None,
            }
            for name, column in metrics.columns.items()
        },
    )
