"""``millrace backfill``: history through Dagster, the same run that its UI starts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, console, page, progress, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.batch.backfill_plan import RangeRun
    from jobs.batch.backfill_runs import PartitionResult, RunFollower
    from millrace.plan import Plan
    from resources.dagster.client import DagsterApi
    from resources.settings import Settings

_LONG = 12
"""A result of more partitions than this is summed up by asset; ``--json`` has them all."""
_FAILURES_SHOWN = 40
_INTERRUPTED = 130
_BAR_TEXT = 80
"""Characters of what a run says that stand beside a bar."""
_PARTS = ("spark", "dagster")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("backfill")(backfill)


def backfill(
    views: Annotated[list[str], typer.Argument(metavar="VIEW…", help="Feature views.")],
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD, UTC.")],
    end: Annotated[str, typer.Option(help="Day after the last, YYYY-MM-DD, UTC.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, start nothing.")] = False,
    no_start: NoStartFlag = False,
    wait: Annotated[bool, typer.Option(help="Stay until it ends, exit 1 if a day fails.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Build the days [start, end) of views and of the events they need, through Dagster.

    Of sources that are refreshed each hour the range may be of hours: 2018-04-01T05:00.
    One run per source; views of one source share it, so raw files are read once. Days that are
    built already are built again, with the same content; for a view that is new to them, events
    are not, unless a raw file has changed since. Where no raw file can be read that is said before
    anything is started; a dry run ends with 1 then.
    """
    from datetime import UTC, datetime

    from jobs.batch.backfill_plan import look_at_files, range_runs, with_stages
    from millrace.days import Days
    from offline.tables.planned_changes import refuse_backfill
    from resources.declarations import load_valid_plan
    from resources.settings import settings_from_env

    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    for fault in faults:
        console.print(f"warning: left out: {fault}", markup=False, style="yellow")
    asked = range_runs(plan, views, Days.parse(start, end), datetime.now(tz=UTC))
    for run in asked:
        refuse_backfill(settings, run.source, run.days)
    runs = [with_stages(settings, run) for run in asked]
    if dry_run:
        if not _show_dry_run(settings, runs, as_json=as_json):
            raise typer.Exit(1)
        return
    for run in runs:
        look_at_files(settings, run)
    start_needed(settings, *_PARTS, no_start=no_start)
    followers = _launch(settings, runs)
    if not wait:
        _show_launched(followers, as_json=as_json)
        return
    _wait(followers)
    _show_results(followers, as_json=as_json)
    if not as_json:
        _hint_at_findings(settings, plan, runs)
    if any(result.error for follower in followers for result in follower.results()):
        raise typer.Exit(1)


def _launch(settings: "Settings", runs: Sequence["RangeRun"]) -> list["RunFollower"]:
    from jobs.batch.backfill_runs import RunFollower, launch

    api = _api(settings)
    followers = []
    for run in runs:
        follower = RunFollower(api, run, launch(api, run))
        followers.append(follower)
        console.print(f"{run.source.name}: {_size(run)}, run {follower.run_id}", markup=False)
        for note in _notes(run):
            console.print(f"  {note}", markup=False)
        console.print(f"  {follower.url}", markup=False)
    return followers


def _api(settings: "Settings") -> "DagsterApi":
    from resources.dagster.client import DagsterApi
    from resources.endpoints import dagster_url

    return DagsterApi(dagster_url(settings))


def _size(run: "RangeRun") -> str:
    unit = "hours" if run.is_hourly else "days"
    return f"{len(run.assets)} assets x {len(run.keys)} {unit} {run.days}"


def _notes(run: "RangeRun") -> list[str]:
    """Say what each table's stage will do, and what is not built again."""
    notes = [line for stage in run.stages for line in stage.lines()]
    if run.has_events:
        notes.insert(
            0,
            f"events/{run.source.name} stands and no raw file has changed since: not built again",
        )
    return notes


def _wait(followers: Sequence["RunFollower"]) -> None:
    from jobs.batch.backfill_runs import follow

    total = sum(follower.run.partitions for follower in followers)
    try:
        with progress("waiting in the queue", total) as advance:
            for follower in follow(followers):
                done = sum(f.done for f in followers)
                text = follower.state[:_BAR_TEXT] if console.is_terminal else follower.state
                advance(completed=done, description=text)
    except KeyboardInterrupt:
        for follower in followers:
            console.print(f"goes on without this command: {follower.url}", markup=False)
        raise typer.Exit(_INTERRUPTED) from None


def _show_launched(followers: Sequence["RunFollower"], *, as_json: bool) -> None:
    if as_json:
        runs = [{**f.run.as_json(), "run_id": f.run_id, "url": f.url} for f in followers]
        show_json({"runs": runs})


def _show_dry_run(settings: "Settings", runs: Sequence["RangeRun"], *, as_json: bool) -> bool:
    """Show what would be built; False if there is no raw file to build it from."""
    documents = [_foreseen(settings, run) for run in runs]
    if as_json:
        show_json({"runs": documents})
    else:
        _show_foreseen(runs, documents)
    return not any("error" in document["raw"] for document in documents)


def _show_foreseen(runs: Sequence["RangeRun"], documents: Sequence[dict[str, Any]]) -> None:
    for run, document in zip(runs, documents, strict=True):
        table = _table("asset", "partitions", "already built")
        for asset in document["assets"]:
            partitions = document["partitions"] // len(document["assets"])
            table.add_row(asset, str(partitions), str(document["built"][asset]))
        page.print(f"\nrun for {document['source']}: [{document['start']}, {document['end']})")
        page.print(table)
        for note in _notes(run):
            page.print(note, markup=False, soft_wrap=True)
        page.print(_raw_text(document["raw"]), markup=False)
        tags = ", ".join(f"{key}={value}" for key, value in document["tags"].items())
        page.print(f"tags: {tags}", markup=False, soft_wrap=True)
    page.print("nothing was started")


def _foreseen(settings: "Settings", run: "RangeRun") -> dict[str, Any]:
    from jobs.batch.backfill_plan import built_partitions

    return {**run.as_json(), "built": built_partitions(settings, run), "raw": _raw(settings, run)}


def _raw(settings: "Settings", run: "RangeRun") -> dict[str, Any]:
    from millrace.errors import PlatformError
    from offline.raw.files import find_raw_files

    batch = run.source.batch
    if batch is None:
        return {"path": None}
    try:
        found = find_raw_files(run.source, settings)
    except PlatformError as error:
        return {"path": batch.path, "error": str(error)}
    if not all(file.was_looked_at for file in found.files):
        return {"path": batch.path}
    read = [file for file in found.files if file.may_hold(run.days.start, run.days.last)]
    return {
        "path": batch.path,
        "files": len(read),
        "bytes": sum(file.size_bytes for file in read),
        "broken": {file.path: file.error for file in read if file.error},
        "passed_over": list(found.passed_over),
    }


def _raw_text(raw: dict[str, Any]) -> str:
    if "error" in raw:
        return f"raw files: {raw['error']}"
    if "files" not in raw:
        return f"raw files: {raw['path']} (not looked at)"
    broken = "".join(f"\n  broken: {path}: {why}" for path, why in raw["broken"].items())
    broken += "".join(f"\n  passed over: {told}" for told in raw["passed_over"])
    return f"raw files: {raw['files']}, {raw['bytes'] / 1e6:.1f} MB in {raw['path']}{broken}"


def _show_results(followers: Sequence["RunFollower"], *, as_json: bool) -> None:
    from jobs.batch.backfill_runs import failure_lines, undated_lines

    if as_json:
        show_json({"runs": [follower.as_json() for follower in followers]})
        return
    results = [result for follower in followers for result in follower.results()]
    page.print(_by_partition(results) if len(results) <= _LONG else _by_asset(results))
    for line in undated_lines(followers):
        page.print(line, markup=False, soft_wrap=True)
    lines = failure_lines(results)
    for line in lines[:_FAILURES_SHOWN]:
        page.print("[red]failed[/red] ", end="")
        page.print(line, markup=False, soft_wrap=True)
    if len(lines) > _FAILURES_SHOWN:
        page.print(f"and for {len(lines) - _FAILURES_SHOWN} more reasons; --json names them all")
    failed = sum(result.error is not None for result in results)
    page.print(f"{len(results) - failed} partitions built, {failed} failed")
    for follower in followers:
        page.print(f"{follower.status.lower()}: {follower.url}", markup=False, soft_wrap=True)


_COUNTERS = ("dagster/partition_row_count", "bytes", "null_keys", "duplicates", "dead_letters")
_HEADINGS = ("rows", "bytes", "null keys", "duplicates", "dead letters")


def _by_partition(results: Sequence["PartitionResult"]) -> "Table":
    table = _table("asset", "partition", "outcome", *_HEADINGS, "missing days")
    for result in results:
        counters = [f"{result.count(name):,}" if not result.error else "" for name in _COUNTERS]
        outcome = "[red]failed[/red]" if result.error else "built"
        missing = str(result.metadata.get("missing_days", ""))
        table.add_row(result.asset, result.partition, outcome, *counters, missing)
    return table


def _by_asset(results: Sequence["PartitionResult"]) -> "Table":
    table = _table("asset", "built", "failed", *_HEADINGS, "days with missing history")
    for asset in dict.fromkeys(result.asset for result in results):
        own = [result for result in results if result.asset == asset]
        good = [result for result in own if result.error is None]
        counters = [f"{sum(r.count(name) for r in good):,}" for name in _COUNTERS]
        missing = sum("missing_days" in r.metadata for r in good)
        table.add_row(asset, str(len(good)), str(len(own) - len(good)), *counters, str(missing))
    return table


def _hint_at_findings(settings: "Settings", plan: "Plan", runs: Sequence["RangeRun"]) -> None:
    """Say how many of the days have findings of checks, and how they are shown."""
    from checks.quality.findings import stored_findings

    for run in runs:
        name = run.views[0].name if len(run.views) == 1 else run.source.name
        for found in stored_findings(settings, plan, name, run.days.start):
            days = [day for day in found.failed if day in run.days]
            held = sum(day in found.held for day in days)
            if days:
                page.print(
                    f"checks: {found.table}: {len(days)} day(s) with findings, {held} held back: "
                    f"millrace findings {name} --since {run.days.start}",
                    markup=False,
                    soft_wrap=True,
                )


def _table(*headings: str) -> "Table":
    from rich.table import Table

    table = Table(box=None)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=place == 0)
    return table
