"""``millrace produce``: a file's rows into a source's topic."""

from pathlib import Path
from typing import Annotated

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, console, page, progress, show_json


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("produce")(produce)


def produce(
    source: Annotated[str, typer.Argument(help="A source with a stream.")],
    file: Annotated[Path, typer.Option("--file", help="Parquet, CSV or JSON lines.")],
    *,
    rate: Annotated[float | None, typer.Option(help="Rows a second; all at once by default.")] = (
        None
    ),
    shift_to_now: Annotated[
        bool,
        typer.Option(
            "--shift-to-now",
            help="Stamp each row with the moment it is sent; without --rate the file's own gaps.",
        ),
    ] = False,
    start: Annotated[str | None, typer.Option(help="First day of event time, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Day after the last, UTC.")] = None,
    no_start: NoStartFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Send a file's rows to the topic of a source, in event-time order.

    Sent again, the same rows are duplicates and count once, as long as the source names an event
    id and its dedup horizon has not passed.
    """
    from millrace.days import parse_day
    from resources.declarations import load_valid_plan
    from resources.settings import settings_from_env
    from streaming.produce.event_files import format_of
    from streaming.produce.producer import Pace, source_to_send_to
    from streaming.produce.producer import produce as send

    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    for fault in faults:
        console.print(f"warning: left out: {fault}", markup=False, style="yellow")
    source_to_send_to(plan, source)
    format_of(file)
    pace = Pace(rate, shift_to_now)
    first, last = parse_day(start) if start else None, parse_day(end) if end else None
    start_needed(settings, "kafka", no_start=no_start)
    with progress(f"sending {file.name}") as advance:
        report = send(
            settings,
            plan,
            source,
            file,
            pace=pace,
            start=first,
            end=last,
            progress=lambda done, total: advance(completed=done, total=total),
        )
    if as_json:
        show_json(report.as_json())
        return
    keyed = f"keyed by {report.key}" if report.key else "without keys"
    page.print(
        f"{report.rows:,} rows in {report.topic}, {keyed}, {report.seconds:.1f} s", markup=False
    )
    if report.timeless:
        console.print(
            f"{report.timeless:,} rows without an event time were left out", style="yellow"
        )
    if report.late:
        console.print(
            f"{report.late:,} of them are older than the source allows and become dead letters "
            "(late); --shift-to-now stamps them anew",
            markup=False,
            style="yellow",
        )
