"""``millrace stream``: the companion Flink jobs by hand."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, console, page, progress, show_error, show_json
from resources.progress import Progress

if TYPE_CHECKING:
    from millrace.plan import Plan
    from resources.settings import Settings

_Views = Annotated[
    list[str] | None,
    typer.Argument(metavar="[VIEW]…", help="Feature views; all that have a stream if none."),
]
_Parallelism = Annotated[
    int | None,
    typer.Option(
        "--parallelism",
        min=1,
        help="Tasks that share the topic's partitions, a slot each; as before if not given.",
    ),
]
_STYLES = {"running": "green", "starting": "yellow", "restarting": "yellow", "stopped": "dim"}
_PARTS = ("kafka", "flink", "store", "writer", "archive")
"""What a stream is made of, from its topic to the store and the lake."""
_QUIET = {"absent", "stopped", "unknown"}


def register(app: typer.Typer) -> None:
    """Add the commands of streams."""
    streams = typer.Typer(
        help="The companion Flink jobs of views.", no_args_is_help=True, rich_markup_mode=None
    )
    streams.command("deploy")(deploy)
    streams.command("stop")(stop)
    streams.command("restart")(restart)
    streams.command("status")(status)
    app.add_typer(streams, name="stream")


def deploy(
    views: _Views = None, *, parallelism: _Parallelism = None, no_start: NoStartFlag = False
) -> None:
    """Bring streams to their declarations and keep them so; what runs as declared is left alone.

    A changed view gets a new version, and the old one serves until that is complete. A stopped or
    failed stream goes on from its newest state.
    """
    from streaming.control.deployments import deploy as deploy_one
    from streaming.control.survey import stream_views

    settings, plan = _declared()
    names = views or stream_views(plan)
    if not names:
        console.print("no declared view has a stream")
    if any(name in stream_views(plan) for name in names):
        start_needed(settings, *_PARTS, no_start=no_start)
    _each(
        "deploy",
        names,
        lambda view, say: deploy_one(settings, plan, view, say, parallelism=parallelism),
    )


def stop(views: _Views = None) -> None:
    """Stop streams with a savepoint; their values are served on, and become stale."""
    from streaming.control.deployments import stop as stop_one

    settings, _ = _declared()
    _each("stop", views or _deployed(settings), lambda view, say: stop_one(settings, view, say))


def restart(
    views: _Views = None, *, parallelism: _Parallelism = None, no_start: NoStartFlag = False
) -> None:
    """Stop streams and submit them again from there; their failures are forgotten."""
    from streaming.control.deployments import restart as restart_one

    settings, _ = _declared()
    deployed = _deployed(settings)
    names = views or deployed
    if any(name in deployed for name in names):
        start_needed(settings, *_PARTS, no_start=no_start)
    _each(
        "restart",
        names,
        lambda view, say: restart_one(settings, view, say, parallelism=parallelism),
    )


def status(views: _Views = None, *, as_json: JsonFlag = False) -> None:
    """Show each stream: state, version, lag, age of its checkpoint; and each source's books."""
    from streaming.control.status import status as status_of

    settings, plan = _declared()
    for view in views or ():
        if view not in _deployed(settings):
            plan.view(view)
    document = status_of(settings, plan)
    if views:
        sources = {plan.views[v].source.name for v in views if v in plan.views}
        document = {
            "views": {v: h for v, h in document["views"].items() if v in views},
            "uploads": {v: u for v, u in document["uploads"].items() if v in views},
            "sources": {s: b for s, b in document["sources"].items() if s in sources},
        }
    if as_json:
        show_json({"home": str(settings.home), **document})
        return
    if document["views"]:
        _show(document)
    elif not (views or document["uploads"]):
        page.print("no declared view has a source with a stream, and none was deployed")
    for view, uploaded in document["uploads"].items():
        text = uploaded.get("detail") or f"{uploaded['version']} serves what was uploaded of it"
        page.print(f"{view}: {text}", markup=False, soft_wrap=True)
    for view in dict.fromkeys(views or ()):
        if view not in document["views"] | document["uploads"]:
            source = plan.view(view).source.name
            page.print(
                f"{view}: source {source!r} has no stream; millrace upload {view} publishes it",
                markup=False,
                soft_wrap=True,
            )


def _declared() -> "tuple[Settings, Plan]":
    from resources.declarations import load_valid_plan
    from resources.settings import settings_from_env

    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    for fault in faults:
        console.print(f"warning: left out: {fault}", markup=False, style="yellow")
    return settings, plan


def _deployed(settings: "Settings") -> list[str]:
    from streaming.publications.records import RecordFiles

    return list(RecordFiles.of(settings.home).read_all())


def _each(verb: str, views: Sequence[str], act: Callable[[str, Progress], Any]) -> None:
    """Act on each view, going on after one that fails; exit 1 if any did."""
    from millrace.errors import PlatformError

    failed = 0
    with progress(f"stream {verb}", len(views)) as advance:
        for view in dict.fromkeys(views):
            try:
                act(view, lambda text: advance(0, description=text))
            except PlatformError as error:
                show_error(error)
                failed += 1
            advance(1)
    if failed:
        raise typer.Exit(1)


def _show(document: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("view", "state", "version", "tasks", "lag, events", "checkpoint, s ago", "job"):
        table.add_column(column, overflow="fold")
    for name, view in document["views"].items():
        style = _STYLES.get(view["state"], "dim" if view["state"] in _QUIET else "red")
        table.add_row(
            name,
            f"[{style}]{view['state']}[/]",
            f"{view['version']} (waits)" if "serves" in view else view["version"] or "",
            _number(view.get("parallelism", 1)),
            _number(view["lag_events"]),
            _number(view["checkpoint_age_s"]),
            view["job_id"] or "",
        )
    page.print(table)
    for name, view in document["views"].items():
        if detail := view.get("detail"):
            page.print(f"{name}: {detail}", markup=False, soft_wrap=True)
    if document["sources"]:
        page.print(_sources(document["sources"]))


def _sources(sources: dict[str, Any]) -> Any:
    from rich.table import Table

    reasons = ("malformed", "schema", "late", "future")
    table = Table(box=None, pad_edge=False)
    for column in ("source", "events", "duplicates", *reasons, "lag, events"):
        table.add_column(column, justify="left" if column == "source" else "right")
    for name, books in sources.items():
        dead = [_number(books["dead_letters"][reason]) for reason in reasons]
        counts = _number(books["events"]), _number(books["duplicates"])
        table.add_row(name, *counts, *dead, _number(books["lag_events"]))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
