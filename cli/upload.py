"""``millrace upload``: a view's batch tiles into the online store."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, console, page, progress, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from millrace.plan import Plan
    from resources.settings import Settings
    from streaming.upload.upload import UploadReport


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("upload")(upload)


def upload(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="Feature view.")],
    *,
    until: Annotated[
        str | None, typer.Option(help="Day after the last, YYYY-MM-DD, UTC.  [default: all built]")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the version's tiles before it first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, store nothing.")] = False,
    no_start: NoStartFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Upload a view's built tiles up to the cut-over into the online store.

    Safe to repeat, and beside a running stream: a tile gives way only to one of at least as many
    events. Days that no event can enter any more are stored in coarser tiles.
    """
    from millrace.days import parse_day
    from resources.declarations import load_valid_plan
    from resources.settings import settings_from_env
    from streaming.upload.upload import upload as upload_tiles

    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    for fault in faults:
        console.print(f"warning: left out: {fault}", markup=False, style="yellow")
    day = None if until is None else parse_day(until)
    plan.view(view)
    start_needed(settings, "store", no_start=no_start)
    with progress(f"upload of {view}", _rows(settings, plan, view)) as advance:
        report = upload_tiles(
            settings,
            plan,
            view,
            lambda text: console.print(text, markup=False),
            until=day,
            is_replacing=replace,
            is_dry_run=dry_run,
            advance=advance,
        )
    if as_json:
        show_json(report.as_json())
    else:
        page.print(_table(report))


def _rows(settings: "Settings", plan: "Plan", view: str) -> int | None:
    """Return the rows of the view's tiles table, for the length of the bar; None if not known."""
    from millrace.names import tiles_table
    from resources.lake.delta import partition_stats
    from resources.lake.view_versions import deployed_version

    version = deployed_version(settings, plan.view(view))
    if version is None:
        return None
    return sum(
        stats.rows for stats in partition_stats(settings, tiles_table(view, version)).values()
    )


def _table(report: "UploadReport") -> "Table":
    from rich.table import Table

    from millrace.calendar import day_of

    table = Table(title="would be uploaded" if report.is_dry_run else "uploaded", show_header=False)
    sealed = report.sealed_before_ms
    for name, value in (
        ("view", f"{report.view} {report.version}"),
        ("days", f"{report.days:,} before {day_of(report.cut_over_ms)}"),
        ("coarsened", "none" if sealed is None else f"before {day_of(sealed)}"),
        ("rows read", f"{report.rows:,}"),
        ("entities", f"{report.entities:,}"),
        ("tiles", f"{report.tiles:,}"),
        ("kept, newer in the store", f"{report.kept:,}"),
        ("bytes", f"{report.bytes:,}"),
        ("seconds", f"{report.seconds:.1f}"),
    ):
        table.add_row(name, value)
    return table
