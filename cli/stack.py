"""``millrace up``, ``down``, ``status``, ``logs`` and ``doctor``: the local stack by hand."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import JsonFlag, console, page, show_json

if TYPE_CHECKING:
    from offline.tables.view_history import ViewHistory
    from resources.configuration.reading import Shown
    from stack.control import Change, PartStatus, Stack, Watch
    from stack.finding import Finding

_Parts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PART]…",
        help="kafka, flink, store, writer, archive, spark, server, dagster; all if none is named",
    ),
]
_STYLES = {"running": "green", "external": "green", "starting": "yellow", "failed": "red"}
_LINKED = frozenset({"kafka", "flink", "server"})
"""Parts whose addresses stand in the metadata of assets (``feature_assets.links``)."""
_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of the local stack."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("logs")(logs)
    app.command("doctor")(doctor)


def up(parts: _Parts = None) -> None:
    """Start parts of the local stack and wait until they are ready.

    What runs already is left alone, unless its settings differ: then it is restarted with them.
    """
    stack = _stack()
    _warn_of_configuration(stack)
    changes = bring_up(stack, parts or [])
    if all(change.kind in {"kept", "external"} for change in changes):
        console.print("nothing to do")
    else:
        _show_table(list(stack.status()))


def _warn_of_configuration(stack: "Stack") -> None:
    """Say what of the configuration is wrong that would show late, or never; starts all the same."""
    from stack.configured import examine_configuration

    for finding in examine_configuration(stack.settings):
        if finding.verdict != "ok":
            text = f"warning: {finding.subject}: {finding.detail}\n  fix: {finding.fix}"
            console.print(text, markup=False, style="yellow")


def bring_up(
    stack: "Stack", names: "Sequence[str]", *, is_bar_shown: bool = False
) -> "tuple[Change, ...]":
    """Ask for parts and show how they start, until all are ready; all parts if none is named.

    ``is_bar_shown`` says that the terminal shows another bar, beside which only lines are printed.

    Raises:
        SetupError: a name is no part.
        EngineUnavailable: a part did not become ready.
    """
    changes = stack.order(names)
    if any(change.part == "flink" and change.kind == "restarted" for change in changes):
        _tell_of_stopped_flink(stack, "millrace up, with other settings")
    for change in changes:
        if note := _note(change):
            console.print(note)
    started = [change.part for change in changes if change.kind != "external"]
    with _watching(stack, started, is_plain=is_bar_shown) as watch:
        stack.wait(names, watch=watch)
    _renew_links(stack, changes)
    return changes


def _renew_links(stack: "Stack", changes: "Sequence[Change]") -> None:
    """Have Dagster load its assets again if parts that they link to were started beside it."""
    from millrace.errors import PlatformError
    from resources.dagster.client import DagsterApi
    from resources.endpoints import dagster_url

    started = {change.part for change in changes if change.kind in {"started", "restarted"}}
    if not started & _LINKED:
        return
    if not any(one.name == "dagster" and one.state == "running" for one in stack.status()):
        return
    try:
        DagsterApi(dagster_url(stack.settings)).reload()
    except PlatformError as error:
        console.print(f"warning: links in Dagster are old: {error}", markup=False, style="yellow")


def down() -> None:
    """Stop every part of the local stack."""
    with console.status("stopping"):
        stack = _stack()
        stopped = stack.down()
        if "flink" in stopped:
            _tell_of_stopped_flink(stack, "millrace down")
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def _tell_of_stopped_flink(stack: "Stack", by: str) -> None:
    from streaming.control.lineage import stopped_with_flink

    stopped_with_flink(stack.settings, by)


def status(*, as_json: JsonFlag = False) -> None:
    """Show what runs and where; and views whose built history is not as declared, with the mend."""
    stack = _stack()
    statuses, histories = list(stack.status()), _histories(stack)
    if as_json:
        parts = {one.name: one.as_json() for one in statuses}
        views = {name: one.as_json() for name, one in histories.items()}
        show_json({"home": str(stack.settings.home), "parts": parts, "views": views})
        return
    _show_table(statuses)
    for name, one in histories.items():
        if one.detail:
            page.print(f"{name}: {one.state}: {one.detail}", markup=False, soft_wrap=True)
            page.print(f"  {one.command}", markup=False, style="green", soft_wrap=True)


def _histories(stack: "Stack") -> "dict[str, ViewHistory]":
    """Return how the history of each built view stands, out of a lake on this machine.

    Nothing where there is no lake yet; one elsewhere is not asked: it may be slow, or away.
    """
    from pathlib import Path

    lake = stack.settings.lake
    if "://" in lake or not Path(lake, "partition_log").is_dir():
        return {}
    from offline.tables.view_history import view_histories
    from resources.declarations import load_valid_plan

    plan, _ = load_valid_plan(stack.settings)
    found = view_histories(stack.settings, plan.views.values())
    return {name: one for name, one in found.items() if one.state != "unbuilt"}


def logs(
    part: Annotated[str, typer.Argument(help="a part, or `supervisor`")],
    *,
    keep_reading: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    lines: Annotated[int, typer.Option("-n", min=0, help="Lines of each log.")] = 50,
) -> None:
    """Show the end of a part's logs."""
    from stack.logs import follow, tail

    stack = _stack()
    if part != "supervisor":
        stack.parts([part])
    paths = stack.logs_of(part)
    if not paths and not keep_reading:
        console.print(f"{part} has no log yet: it was never started in {stack.settings.home}")
    for name, path in paths.items():
        if len(paths) > 1:
            console.print(f"--- {name}: {path}", style="dim")
        typer.echo(tail(path, lines))
    if keep_reading:
        for name, line in follow(lambda: stack.logs_of(part), is_over=lambda: False):
            typer.echo(f"{name}: {line}" if len(paths) > 1 else line)


def doctor(*, as_json: JsonFlag = False) -> None:
    """Say what is installed, reachable and wrong, and the mend; exit 1 if something fails.

    The settings follow, each with where it came from; secrets are masked.
    """
    from resources.settings import settings_shown
    from stack.doctor import examine

    found: list[Finding] = []
    with console.status("looking"):
        stack = _stack()
        found.extend(examine(stack))
    settings, home = settings_shown(), str(stack.settings.home)
    if as_json:
        findings = [finding.as_json() for finding in found]
        shown = [one.as_json() for one in settings]
        show_json({"home": home, "findings": findings, "settings": shown})
    else:
        for finding in found:
            page.print(f"{_MARKS[finding.verdict]:<14} [bold]{finding.subject}[/]: ", end="")
            page.print(finding.detail, markup=False)
            if finding.fix:
                page.print(f"     fix: {finding.fix}", markup=False, style="green")
        _show_settings(settings)
    if any(finding.verdict == "fail" for finding in found):
        raise typer.Exit(1)


def _show_settings(settings: "list[Shown]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="settings", title_justify="left")
    for name in ("key", "value", "from"):
        table.add_column(name, overflow="fold")
    for one in settings:
        origin = one.where if one.origin != "default" else "default"
        table.add_row(one.key, one.value or "", origin)
    page.print(table, markup=False)


def _stack() -> "Stack":
    from resources.settings import settings_from_env
    from stack.control import Stack

    return Stack(settings_from_env())


def _note(change: "Change") -> str:
    if change.kind == "external":
        return f"{change.part}: your own service is used"
    if change.kind == "restarted":
        differing = ", ".join(change.variables)
        return f"{change.part}: restarted, for {differing} differs from what it ran with"
    return f"{change.part}: runs already" if change.kind == "kept" else ""


@contextmanager
def _watching(stack: "Stack", names: list[str], *, is_plain: bool) -> "Iterator[Watch]":
    """Show a line with a spinner per part; plain lines where stderr is no terminal."""
    if is_plain or not console.is_terminal:
        yield _line_by_line()
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.fields[part]:<8} {task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {
            name: bars.add_task("", total=1, part=name, state="starting", detail="")
            for name in names
        }

        def watch(one: "PartStatus") -> None:
            done = int(one.state == "running")
            detail = (one.detail.splitlines() or [""])[0]
            bars.update(tasks[one.name], completed=done, state=one.state, detail=detail)

        yield watch


def _line_by_line() -> "Watch":
    shown: set[str] = set()

    def watch(one: "PartStatus") -> None:
        line = f"{one.name}: {one.state} {one.detail}".rstrip()
        if line not in shown:
            shown.add(line)
            console.print(line, markup=False)

    return watch


def _show_table(statuses: "list[PartStatus]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("part", "state", "pid", "url", ""):
        table.add_column(column, overflow="fold")
    for one in statuses:
        style = _STYLES.get(one.state, "dim")
        pids = ", ".join(f"{name} {pid}" for name, pid in one.pids.items())
        restarts = f"restarts: {one.restarts}" if one.restarts else ""
        table.add_row(
            one.name,
            f"[{style}]{one.state}[/]",
            pids,
            one.url,
            "; ".join(filter(None, (one.detail, restarts))),
        )
    page.print(table)
