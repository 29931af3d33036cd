"""How every command speaks: results on stdout, progress and errors on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from millrace.errors import PlatformError, SpecError

JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")
]
"""The ``--json`` option of reading commands: ``def command(*, as_json: JsonFlag = False)``."""


console = Console(stderr=True, highlight=False, soft_wrap=True)
"""The console on stderr: progress, notes and errors."""

page = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
"""The console on stdout: what a command was asked for, unless as JSON."""


def show_json(value: object) -> None:
    """Write one JSON document to stdout; dates become ISO text."""
    typer.echo(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: object) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return str(value)


def json_was_asked() -> bool:
    """True if this process was called with ``--json``; errors then go to stdout as JSON too."""
    return "--json" in sys.argv[1:]


def error_as_json(error: PlatformError) -> dict[str, Any]:
    """Return ``{"error": {code, what, where, fix, faults}}``; faults only of declarations."""
    faults = error.faults if isinstance(error, SpecError) else ()
    return {
        "error": {
            "code": error.code,
            "what": error.what,
            "where": error.where,
            "fix": error.fix,
            "faults": [{"what": f.what, "where": f.where, "fix": f.fix} for f in faults],
        }
    }


def show_error(error: PlatformError) -> None:
    """Render an error once: every fault with its place and its mend."""
    if json_was_asked():
        show_json(error_as_json(error))
        return
    faults = error.faults if isinstance(error, SpecError) else ()
    if len(faults) > 1:
        console.print(Text(f"error: {error.what}", style="bold red"))
        for fault in faults:
            console.print(_fault_text(fault.what, fault.where, fault.fix))
    else:
        title = Text("error: ", style="bold red")
        console.print(title + _fault_text(error.what, error.where, error.fix))


def _fault_text(what: str, where: str, fix: str) -> Text:
    text = Text()
    if where:
        text.append(f"{where}: ", style="bold")
    text.append(what)
    if fix:
        text.append("\n  fix: ", style="green")
        text.append(fix)
    return text


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr while the block runs.

    Yields:
        ``advance(steps=1, *, description=None, completed=None, total=None)``. On a stderr that is
        no terminal nothing moves; each new description is printed once, one a line.
    """
    if not console.is_terminal:
        yield _line_by_line(description)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)

        def advance(
            steps: float = 1,
            *,
            description: str | None = None,
            completed: float | None = None,
            total: float | None = None,
        ) -> None:
            bar.update(
                task,
                advance=None if completed is not None else steps,
                description=description,
                completed=completed,
                total=total,
            )

        yield advance


def _line_by_line(description: str) -> Callable[..., None]:
    shown = {description}
    console.print(description, markup=False)

    def advance(
        _steps: float = 1,
        *,
        description: str | None = None,
        completed: float | None = None,
        total: float | None = None,
    ) -> None:
        # What several things at once say by turns is said once.
        if description is not None and description not in shown:
            shown.add(description)
            console.print(description, markup=False)

    return advance
