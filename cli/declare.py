"""``validate``, ``plan`` and ``export``: what is declared, and what it means."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import JsonFlag, console, page, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from millrace.plan import EmptyDays, Output, Plan, SchedulePlan, ViewPlan
    from offline.tables.planned_changes import PlannedChange


_VIEWS_NAMED = 3
"""Views that a warning names; ``--json`` has a warning for each view."""


class Format(StrEnum):
    """The two ways to write a declaration."""

    YAML = "yaml"
    PYTHON = "python"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(validate)
    app.command()(plan)
    app.command()(export)


def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files and folders; without any, all folders of declarations."),
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Report all faults of the declarations."""
    from resources.declarations import load_plan, plan_of, refuse_empty
    from resources.settings import settings_from_env

    refuse_empty(paths or [])
    found = plan_of(paths) if paths else load_plan(settings_from_env())
    if as_json:
        show_json({**_counts(found), "warnings": _warnings(found)})
        return
    counts = ", ".join(
        f"{number} {name.replace('_', ' ')}" for name, number in _counts(found).items()
    )
    page.print(f"[green]no faults[/green] in {counts}", soft_wrap=True)
    for text, views in _views_by_warning(found).items():
        more = f" and {len(views) - _VIEWS_NAMED} more views" if len(views) > _VIEWS_NAMED else ""
        console.print(f"[yellow]warning[/yellow] {', '.join(views[:_VIEWS_NAMED])}{more}: {text}")


def plan(
    view: Annotated[str | None, typer.Argument(help="One feature view; without, all.")] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Show what would be built: types, windows, hops, tiles, fingerprints, versions, warnings.

    And what of it is in the lake by another declaration: what is built again, and why. A change that
    stored values do not survive is refused (exit 1).
    """
    from offline.tables.planned_changes import planned_change
    from resources.declarations import load_plan
    from resources.settings import settings_from_env

    settings = settings_from_env()
    found = load_plan(settings)
    views = list(found.views.values()) if view is None else [found.view(view)]
    changes = {v.name: planned_change(settings, v) for v in views}
    if as_json:
        document: dict[str, Any] = {
            "views": [
                {**view_as_json(v, c.version), "change": c.as_json()}
                for v, c in zip(views, changes.values(), strict=True)
            ]
        }
        if view is None:
            document["services"] = {
                s.name: [f"{of}:{feature}" for of, feature in s.features]
                for s in found.services.values()
            }
        show_json(document)
    else:
        if not views:
            page.print("no feature views are declared")
        for one in views:
            _show_view(one, changes[one.name])
    if any(change.refused for change in changes.values()):
        raise typer.Exit(1)


def export(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.YAML,
) -> None:
    """Print a view with its source and entities as a declaration that stands alone."""
    from millrace.export import of_view, to_python, to_yaml
    from resources.declarations import load_declared
    from resources.settings import settings_from_env

    specs, _ = load_declared(settings_from_env())
    write = to_yaml if form is Format.YAML else to_python
    typer.echo(write(of_view(specs, view)), nl=False)


def view_as_json(view: "ViewPlan", version: str | None) -> dict[str, Any]:
    """Return a view's plan as plain values; durations in milliseconds, null for a lifetime."""
    source = view.source
    return {
        "name": view.name,
        "fingerprint": view.fingerprint,
        "version": version,
        "entities": [
            {"name": e.name, "join_key": e.join_key, "type": str(e.type)} for e in view.entities
        ],
        "source": {
            "name": source.name,
            "event_time": source.event_time,
            "event_id": source.event_id,
            "ingest_time": source.ingest_time,
            "allowed_lateness_ms": source.allowed_lateness_ms,
            "clock_skew_ms": source.clock_skew_ms,
            "dedup_horizon_ms": source.dedup_horizon_ms,
            "schedule": _schedule_as_json(source.schedule),
            "end": None if source.end is None else source.end.isoformat(),
            "empty_days": _empty_days_as_json(source.empty_days),
            "late_after_ms": source.late_after_ms,
        },
        "start": view.start.isoformat(),
        "filter": None if view.filter is None else view.filter.text,
        "tile_hop_ms": view.tile_hop_ms,
        "ttl_ms": view.ttl_ms,
        "freshness_ms": view.freshness_ms,
        "online": view.is_online,
        "features": [_feature_as_json(feature) for feature in view.outputs],
        "warnings": list(view.warnings),
    }


def _schedule_as_json(schedule: "SchedulePlan") -> dict[str, Any]:
    return {
        "refresh": "hourly" if schedule.is_hourly else "daily",
        "at": None if schedule.at is None else f"{schedule.at:%H:%M}",
        "timezone": schedule.timezone,
    }


def _empty_days_as_json(empty: "EmptyDays") -> list[str]:
    from millrace.rules.schedules import WEEKDAYS

    weekdays = [WEEKDAYS[number] for number in sorted(empty.weekdays)]
    return [*weekdays, *(day.isoformat() for day in sorted(empty.days))]


def _feature_as_json(feature: "Output") -> dict[str, Any]:
    from millrace.plan import DerivedPlan

    shown = {
        "name": feature.name,
        "type": str(feature.type),
        "default": None if feature.default is None else str(feature.default),
        "description": feature.description,
    }
    if isinstance(feature, DerivedPlan):
        return {**shown, "derive": feature.expression.text}
    return {
        **shown,
        "aggregate": feature.aggregate.name,
        "parameters": dict(feature.aggregate.parameters),
        "input": None if feature.measure is None else feature.measure.expression.text,
        "window_ms": feature.window.length_ms,
        **{k: v for k, v in feature.window.document().items() if k != "length_ms"},
        "reach_ms": feature.window.reach_ms,
    }


def _counts(plan: "Plan") -> dict[str, int]:
    return {
        "sources": len(plan.sources),
        "entities": len(plan.entities),
        "feature_views": len(plan.views),
        "features": sum(len(v.outputs) for v in plan.views.values()),
        "feature_services": len(plan.services),
    }


def _warnings(plan: "Plan") -> list[dict[str, str]]:
    return [
        {"view": view.name, "where": str(view.where), "warning": warning}
        for view in plan.views.values()
        for warning in view.warnings
    ]


def _views_by_warning(plan: "Plan") -> dict[str, list[str]]:
    """Return the views that each warning is given for, so that it is said once."""
    views: dict[str, list[str]] = {}
    for warning in _warnings(plan):
        views.setdefault(warning["warning"], []).append(warning["view"])
    return views


def _show_view(view: "ViewPlan", change: "PlannedChange") -> None:
    from rich.table import Table
    from rich.text import Text

    from millrace.durations import format_duration

    keys = ", ".join(f"{e.name} ({e.join_key} {e.type})" for e in view.entities)
    built = change.version or "not built yet"
    facts = Table.grid(padding=(0, 2))
    facts.add_row("of", keys)
    ended = "" if view.source.end is None else f", closed on {view.source.end}"
    facts.add_row("from", f"{view.source.name}, since {view.start}{ended}")
    if view.filter is not None:
        facts.add_row("where", Text(view.filter.text))
    facts.add_row("tiles", f"of {format_duration(view.tile_hop_ms)}")
    reach = (
        "all there are" if view.reach_ms is None else f"up to {format_duration(view.reach_ms)} old"
    )
    facts.add_row("events", reach)
    if not view.is_online:
        facts.add_row("online", "no: built, never served")
    facts.add_row("version", f"{built} [dim]fingerprint[/dim] {view.fingerprint}")
    page.rule(f"[bold]{view.name}", align="left")
    page.print(facts)
    page.print(_feature_table(view))
    for warning in view.warnings:
        page.print(Text("! ", style="yellow") + Text(warning), soft_wrap=True)
    for line in change.lines():
        page.print(Text("> ", style="cyan") + Text(line), soft_wrap=True)
    if change.refused is not None:
        page.print(Text(f"refused: {change.refused}", style="red"), soft_wrap=True)
    page.print()


def _feature_table(view: "ViewPlan") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from millrace.durations import format_duration
    from millrace.plan import DerivedPlan

    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("feature", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("value", overflow="fold")
    for heading in ("window", "hop", "offset"):
        table.add_column(heading, justify="right", no_wrap=True)
    for feature in view.outputs:
        if isinstance(feature, DerivedPlan):
            value = Text(f"{feature.expression.text}{_else(feature)}")
            table.add_row(feature.name, str(feature.type), value, "derived")
            continue
        window = feature.window
        of = "" if feature.measure is None else feature.measure.expression.text
        table.add_row(
            feature.name,
            str(feature.type),
            Text(f"{feature.aggregate.of(of)}{_else(feature)}"),
            window.words,
            format_duration(window.hop_ms),
            window.ago,
        )
    return table


def _else(feature: "Output") -> str:
    return "" if feature.default is None else f" else {feature.default}"
