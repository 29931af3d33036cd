"""``millrace lineage``: who is told of what is built, what waits for them, and telling them again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import JsonFlag, console, page, show_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lineage.shipping import Shipped
    from resources.settings import Settings

_BUDGET_S = 60.0


def register(app: typer.Typer) -> None:
    """Add the commands of lineage."""
    lineage = typer.Typer(
        help="OpenLineage events and their receivers.", no_args_is_help=True, rich_markup_mode=None
    )
    lineage.command("status")(status)
    lineage.command("ship")(ship)
    lineage.command("replay")(replay)
    app.add_typer(lineage, name="lineage")


def status(*, as_json: JsonFlag = False) -> None:
    """Show each receiver: what it was sent, what waits for it, and since when and why."""
    from lineage.shipping import standing
    from resources.settings import settings_from_env

    settings = settings_from_env()
    found = standing(settings)
    _show(settings, found, [one.standing for one in found], as_json=as_json)


def ship(*, as_json: JsonFlag = False) -> None:
    """Send everything that waits, now; exit 1 if a receiver does not take it.

    What a process began that was killed is ended first; of Dagster's runs only Dagster knows.
    """
    from lineage.closing import close_ended, process_verdict
    from lineage.receivers import is_off
    from lineage.shipping import ship as ship_now
    from resources.settings import settings_from_env

    settings = settings_from_env()
    if not is_off(settings):
        close_ended(settings, process_verdict, datetime.now(tz=UTC))
    found = ship_now(settings, budget_s=_BUDGET_S, is_forced=True)
    _show(settings, found, list(map(str, found)), as_json=as_json)
    if any(one.error for one in found):
        raise typer.Exit(1)


def replay(
    since: Annotated[str, typer.Option(help="First day to tell again, YYYY-MM-DD, UTC.")],
    receiver: Annotated[
        str | None, typer.Option(help="Its name in `lineage status`.  [default: all]")
    ] = None,
) -> None:
    """Let receivers be told again what happened since a day; events are kept for seven days.

    They come in their order, with the run ids and keys they had before.
    """
    from lineage.outbox import Outbox
    from lineage.shipping import standing
    from millrace.days import Days, parse_day
    from millrace.errors import SetupError, nearest
    from resources.settings import settings_from_env

    settings = settings_from_env()
    names = [found.name for found in standing(settings)]
    if receiver is not None and receiver not in names:
        raise SetupError(f"no receiver is named {receiver!r}", fix=nearest(receiver, names))
    since_ms = Days.covering([parse_day(since)]).start_ms
    for name in names if receiver is None else [receiver]:
        count = Outbox.of(settings).rewind(name, since_ms)
        console.print(f"{name}: {count} event(s) will be told again", markup=False)


def _show(
    settings: "Settings", found: "Sequence[Shipped]", lines: "Sequence[str]", *, as_json: bool
) -> None:
    from lineage.outbox import Outbox

    open_runs = len(Outbox.of(settings).open_runs())
    if as_json:
        receivers = {one.name: one.as_json() for one in found}
        show_json({"home": str(settings.home), "receivers": receivers, "open_runs": open_runs})
        return
    for line in lines:
        page.print(line, markup=False, soft_wrap=True)
    if not found:
        page.print("nobody is told: lineage.receivers is none")
    page.print(f"{open_runs} run(s) are open")
