"""``millrace findings``: what the checks of built days found, read from the lake."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import JsonFlag, console, page, show_json

if TYPE_CHECKING:
    from datetime import date

    from checks.quality.findings import TableFindings

_MOST_ROWS = 40
"""More findings than this are shown by rule instead of by day; ``--json`` has them all."""
_STYLES = {"error": "red", "warn": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("findings")(findings)


def findings(
    view: Annotated[
        str | None,
        typer.Argument(metavar="[VIEW]", help="A feature view or a source; all if none."),
    ] = None,
    *,
    since: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD, UTC.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the checks of built days found: day, rule, value, limit, and what is held back.

    Read from the lake; nothing of the stack needs to run, and nothing is judged again.
    """
    from checks.quality.findings import stored_findings
    from millrace.days import parse_day
    from resources.declarations import load_valid_plan
    from resources.settings import settings_from_env

    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    for fault in faults:
        console.print(f"warning: left out: {fault}", markup=False, style="yellow")
    first = None if since is None else parse_day(since)
    found = stored_findings(settings, plan, view, first)
    if as_json:
        show_json({"tables": [one.as_json() for one in found]})
    else:
        _show(found)


def _show(found: "Sequence[TableFindings]") -> None:
    from millrace.days import days_by_reason

    judged = [one for one in found if one.days]
    if sum(len(rules) for one in judged for rules in one.failed.values()) > _MOST_ROWS:
        _show_by_rule(judged)
    else:
        _show_by_day(judged)
    for one in found:
        for reason, days in days_by_reason(one.held.items()).items():
            page.print("[red]held back[/] ", end="")
            page.print(f"{one.table} {days}: {reason}", markup=False, soft_wrap=True)
    for one in judged:
        page.print(
            f"{one.table}: {len(one.days)} day(s) judged, {len(one.failed)} with findings, "
            f"{len(one.held)} held back",
            soft_wrap=True,
        )
    if not judged:
        page.print("no day was judged yet: checks judge the days that a backfill builds")


def _show_by_day(judged: "Sequence[TableFindings]") -> None:
    table = _table("table", "day", "severity", "check", "column", "value", "limit")
    for one in judged:
        for day, rules in one.failed.items():
            for finding in rules:
                table.add_row(one.table, str(day), *_cells(finding))
    if table.row_count:
        page.print(table)


def _show_by_rule(judged: "Sequence[TableFindings]") -> None:
    from millrace.days import day_list

    table = _table("table", "severity", "check", "column", "newest value", "its limit", "days")
    for one in judged:
        by_rule: dict[tuple[str, str], list[tuple[date, Any]]] = {}
        for day, rules in one.failed.items():
            for finding in rules:
                by_rule.setdefault((finding["rule"], finding["severity"]), []).append(
                    (day, finding)
                )
        for found in by_rule.values():
            days = [day for day, _ in found]
            table.add_row(one.table, *_cells(found[-1][1]), f"{len(days)}: {day_list(days)}")
    page.print(table)


def _cells(finding: Any) -> tuple[str, ...]:
    style = _STYLES.get(finding["severity"], "default")
    return (
        f"[{style}]{finding['severity']}[/]",
        finding["type"],
        finding["column"] or "",
        _plain(finding["actual"] or finding["reason"]),
        _plain(finding["expected"]),
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _table(*headings: str) -> Any:
    from rich.table import Table

    table = Table(box=None)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
