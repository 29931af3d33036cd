"""``parity``: served values against their recomputation from the lake, at the same instants."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, console, page, progress, show_json

if TYPE_CHECKING:
    from checks.parity.report import ParityReport

_MOST_ROWS = 20


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("parity")(parity)


def parity(
    view: Annotated[str, typer.Argument(help="A feature view that is served.")],
    samples: Annotated[int, typer.Option(min=1, help="Entities to ask about.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="Chooses the entities; by the clock if not given.")
    ] = None,
    in_flight_ms: Annotated[
        int,
        typer.Option(
            min=0, help="An event that arrived this long before an answer may be missing."
        ),
    ] = 5000,
    *,
    no_start: NoStartFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Recompute served answers at their own instants and compare; exit 1 on any difference."""
    from checks.parity.audit import check_parity
    from resources.declarations import load_plan
    from resources.settings import settings_from_env

    settings = settings_from_env()
    plan = load_plan(settings)
    is_live = plan.view(view).source.stream is not None
    # The archive must pass the answers before they can be recomputed.
    parts = ("server", "kafka", "archive") if is_live else ("server",)
    start_needed(settings, *parts, no_start=no_start)
    with progress(f"{view}: choosing entities") as advance:
        report = check_parity(
            settings,
            plan,
            view,
            lambda text: advance(0, description=text),
            samples=samples,
            seed=seed,
            in_flight_ms=in_flight_ms,
        )
    if as_json:
        show_json(report.as_json())
    else:
        _show(report)
    if not report.is_equal:
        raise typer.Exit(1)


def _show(report: "ParityReport") -> None:
    if report.differences:
        _show_differences(report)
    samples = ", ".join(f"{count} {kind}" for kind, count in report.samples.items())
    from millrace.durations import format_duration

    in_flight = report.in_flight
    page.print(
        f"{report.view.name} {report.version}: {report.values:,} values of "
        f"{report.view.name}'s {len(report.view.outputs)} features compared ({samples})",
        soft_wrap=True,
    )
    for said in report.passed_over:
        page.print(f"not looked at: {said}", markup=False, soft_wrap=True)
    page.print(
        f"in flight: {in_flight.events} event(s) missing from {in_flight.answers} answer(s), the "
        f"oldest {in_flight.lag_ms} ms old ({format_duration(in_flight.allowed_ms)} allowed); the archive was "
        f"{report.archive_wait_s:.1f} s behind",
        soft_wrap=True,
    )
    if report.is_equal:
        page.print("[green]equal[/]: 0 values differ")
    else:
        console.print(f"[bold red]{report.differing} values differ[/] (--seed {report.seed})")
    if report.hint is not None:
        page.print(report.hint, markup=False, style="yellow", soft_wrap=True)


def _show_differences(report: "ParityReport") -> None:
    from rich.table import Table

    table = Table("feature", "entity", "as of", "what", "served", "recomputed")
    for one in report.differences[:_MOST_ROWS]:
        shown = one.as_json(report.view)
        table.add_row(
            *(str(shown[n]) for n in ("feature", "key", "as_of", "what")),
            repr(shown["served"]),
            repr(shown["recomputed"]),
        )
    page.print(table)
    for name, count in sorted(report.by_feature.items()):
        page.print(f"  {name}: {count} differ", markup=False)
