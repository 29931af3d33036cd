"""``millrace alerts``: what is open, what waits for which sink, and whether a sink works."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import JsonFlag, console, page, show_json

if TYPE_CHECKING:
    from alerts.conditions import Condition
    from alerts.outbox import SinkStatus

_Sink = Annotated[str, typer.Argument(metavar="SINK", help="A sink of the alerts file.")]
SILENT_MS = 300_000
"""The watcher looks every fifteen seconds; after so long without a look, something is wrong."""


def register(app: typer.Typer) -> None:
    """Add the commands of alerts."""
    alerts = typer.Typer(
        help="Who is told of what goes wrong.", no_args_is_help=True, rich_markup_mode=None
    )
    alerts.command("status")(status)
    alerts.command("test")(test)
    alerts.command("retry")(retry)
    app.add_typer(alerts, name="alerts")


def status(*, as_json: JsonFlag = False) -> None:
    """Show open incidents, and what waits for each sink; exit 1 if the watcher is silent."""
    from alerts.configuration import load_config
    from alerts.delivery import now_ms
    from alerts.outbox import Outbox
    from alerts.state import AlertStore
    from resources.settings import settings_from_env

    settings, now = settings_from_env(), now_ms()
    config = load_config(settings)
    with AlertStore.open(settings) as store:
        watch = store.watch()
        opened = store.open_conditions()
        outbox = Outbox(store.engine)
        sinks = list(outbox.statuses(config.sinks, now).values())
        refused = outbox.refused()
    looked_s = None if watch is None else (now - watch.ticked_ms) // 1000
    is_silent = looked_s is None or looked_s * 1000 > SILENT_MS
    if as_json:
        show_json(
            {
                "home": str(settings.home),
                "watcher": {
                    "state": "silent" if is_silent else "running",
                    "looked_s_ago": looked_s,
                },
                "open": _open_json(opened),
                "sinks": {one.name: one.as_json() for one in sinks},
                "refused": refused,
            }
        )
    else:
        _show(looked_s, opened, sinks)
        for one in refused:
            page.print(f"refused by {one['sink']}: {one['title']}: {one['reason']}", markup=False)
    if is_silent:
        raise typer.Exit(1)


def test(sink: _Sink) -> None:
    """Send a message to one sink now, past every queue; exit 1 if it does not arrive."""
    from alerts.configuration import load_config
    from alerts.delivery import now_ms
    from alerts.message import Delivery, probe_message
    from resources.settings import settings_from_env

    config = load_config(settings_from_env())
    spec = config.sinks[_known(sink, list(config.sinks))]
    message = probe_message(f"test:{uuid.uuid4().hex[:12]}", now_ms(), sink)
    spec.open().send(Delivery(message.key, (message,)))
    console.print(f"{sink} took it ({message.key})")


def retry(sink: _Sink) -> None:
    """Queue what a sink has refused once more; the next delivery tries it at once."""
    from alerts.configuration import load_config
    from alerts.outbox import Outbox
    from alerts.state import AlertStore
    from resources.settings import settings_from_env

    settings = settings_from_env()
    name = _known(sink, list(load_config(settings).sinks))
    with AlertStore.open(settings) as store:
        count = Outbox(store.engine).retry(name)
    console.print(f"{count} messages wait for {name} again")


def _known(sink: str, sinks: list[str]) -> str:
    from millrace.errors import PlatformError, nearest

    if sink not in sinks:
        raise PlatformError(f"there is no sink {sink!r}", fix=nearest(sink, sinks))
    return sink


def _open_json(opened: "list[Condition]") -> list[dict[str, Any]]:
    from alerts.folding import followers_of, standing

    known = {one.fingerprint: one for one in opened}
    followers = followers_of(known)
    return [
        {
            "fingerprint": condition.fingerprint,
            "incident": incident.id,
            "opened_ms": incident.opened_ms,
            "summary": incident.story.summary,
            "owners": list(incident.story.owners),
            "sinks": list(incident.sinks),
            "reminders": incident.reminders,
            "is_told": incident.is_told,
            "folded": [one.key for one in followers.get(condition.fingerprint, ())],
        }
        for condition in standing(known)
        if (incident := condition.open_incident) is not None
    ]


def _show(looked_s: int | None, opened: "list[Condition]", sinks: "list[SinkStatus]") -> None:
    from rich.table import Table

    from alerts.folding import followers_of, standing
    from alerts.message import iso, subject_text

    looked = "never looked: is Dagster up?" if looked_s is None else f"looked {looked_s} s ago"
    known = {one.fingerprint: one for one in opened}
    followers, alone = followers_of(known), standing(known)
    folded = f", {len(opened) - len(alone)} more folded under them" * (len(alone) < len(opened))
    page.print(f"the watcher {looked}; {len(alone)} incidents are open{folded}", markup=False)
    for one in alone:
        incident = one.open_incident
        if incident is not None:
            told = f"  {one.severity} since {iso(incident.opened_ms)}: {subject_text(one.subject)}"
            page.print(f"{told}: {incident.story.summary}", markup=False)
        for follower in followers.get(one.fingerprint, ()):
            page.print(f"      and {subject_text(follower)}", markup=False)
    table = Table(box=None, pad_edge=False)
    for column in ("sink", "waiting", "refused", "failures", "last sent", ""):
        table.add_column(column, overflow="fold")
    for sink in sinks:
        sent = "never" if sink.sent_ms is None else iso(sink.sent_ms)
        counts = (str(sink.pending), str(sink.parked), str(sink.failures))
        table.add_row(sink.name, *counts, sent, sink.error)
    page.print(table)
