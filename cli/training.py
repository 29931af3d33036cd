"""``training-set``: a spine and the features of its rows, in one file."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, console, page, progress, show_json

if TYPE_CHECKING:
    from millrace.plan import Plan
    from offline.training.sets import TrainingReport


class EngineName(StrEnum):
    """Where a training set can be computed."""

    SPARK = "spark"
    LOCAL = "local"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="training-set")(training_set)


def training_set(
    spine: Annotated[
        Path,
        typer.Option(help="Parquet or CSV: join keys, event_timestamp, and what else is wanted."),
    ],
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.")],
    features: Annotated[
        str | None, typer.Option(help="Names by comma: feature, view:feature or view:*.")
    ] = None,
    service: Annotated[
        str | None, typer.Option(help="A feature service, instead of --features.")
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="Without it: local if the lake is a local path and the work fits in half of the "
            "free memory, else spark."
        ),
    ] = None,
    *,
    no_start: NoStartFlag = False,
    hindsight: Annotated[
        bool, typer.Option("--hindsight", help="Also see what had not arrived at a row's time.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the rows of a spine with features as they were known at each row's time."""
    from offline.training.sets import build_training_set
    from resources.declarations import load_plan
    from resources.settings import settings_from_env

    if (features is None) == (service is None):
        raise typer.BadParameter("name either --features or --service")
    settings = settings_from_env()
    plan = load_plan(settings)
    with progress("training set") as advance:
        report = build_training_set(
            settings,
            plan,
            spine,
            _names(plan, features, service),
            out,
            engine=None if engine is None else engine.value,
            hindsight=hindsight,
            progress=lambda text: advance(description=text),
            before_spark=lambda: start_needed(
                settings, "spark", no_start=no_start, is_bar_shown=True
            ),
        )
    if as_json:
        show_json(report.as_json())
    else:
        _show(report)


def _names(plan: "Plan", features: str | None, service: str | None) -> tuple[str, ...]:
    from offline.training.requested_features import service_features

    if service is not None:
        return service_features(plan, service)
    return tuple((features or "").split(","))


def _show(report: "TrainingReport") -> None:
    from rich.table import Table

    for warning in report.warnings:
        mend = f"\n  fix: {warning.fix}" if warning.fix else ""
        console.print(f"[yellow]warning[/yellow] {warning.view}: {warning.what}{mend}")
    if report.hindsight:
        console.print(
            "[yellow]hindsight[/yellow] rows see events that had not arrived at their time"
        )
    table = Table("feature", "view", "null rate", title=f"{report.rows:,} rows in {report.out}")
    table.columns[2].justify = "right"
    source_of = {name: share.view for share in report.views for name in share.features}
    for name in report.columns:
        table.add_row(name, source_of[name], f"{report.null_rates[name]:.2%}")
    page.print(table)
    page.print(
        f"{report.events_read:,} events read, engine {report.engine}, {report.seconds:.1f} s",
        soft_wrap=True,
    )
