"""``lookup``: features of one or more entities, asked from the stack's own server."""

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, page, show_json
from millrace.errors import EngineUnavailable, NotDeclared, ServingError

if TYPE_CHECKING:
    from resources.settings import Settings

_TIMEOUT_S = 10.0
_NOT_FOUND = 404


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="lookup")(lookup)


def lookup(
    entity: Annotated[
        str, typer.Argument(help="An entity; for a composite view several by comma.")
    ],
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...",
            help="Keys; a composite one as name=value,name=value or as a JSON object.",
        ),
    ],
    features: Annotated[
        str,
        typer.Option(help="Names by comma: feature, view:feature, view:* or service:name."),
    ],
    *,
    no_start: NoStartFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Look features up online, as a model would."""
    from resources.endpoints import server_url
    from resources.settings import settings_from_env

    settings = settings_from_env()
    start_needed(settings, "server", no_start=no_start)
    url = server_url(settings)
    try:
        answers = [_answer(url, entity, key, features) for key in keys]
    except ServingError as error:
        undeployed = _not_deployed(settings, url, entity, features)
        if undeployed is None:
            raise
        raise undeployed from error
    if as_json:
        results = [{name: a[name] for name in ("key", "features", "status")} for a in answers]
        # Each key was asked for by itself; the newest instant stands for all.
        as_of = max(answer["as_of"] for answer in answers)
        show_json({"entity_name": answers[0]["entity_name"], "as_of": as_of, "results": results})
        return
    for answer in answers:
        _show(answer)


def _answer(url: str, entity: str, key: str, features: str) -> dict[str, Any]:
    query = urlencode({"entity": entity, "features": features})
    asked = f"{url}/features/{quote(key, safe='')}?{query}"
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as reply:  # noqa: S310 - our own
            answer: dict[str, Any] = json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.code, error.read(), url) from error
    except (urllib.error.URLError, OSError) as error:
        raise EngineUnavailable(
            f"the server does not answer: {error}", where=url, fix="millrace up server"
        ) from error
    return answer


def _not_deployed(settings: "Settings", url: str, entity: str, features: str) -> NotDeclared | None:
    """Say which view is asked for that is declared here and not served; None if there is none.

    The server knows what is published, and no declarations.
    """
    from resources.declarations import load_valid_plan

    plan, _ = load_valid_plan(settings)
    wanted = {name.strip() for name in entity.split(",")}
    asked: dict[str, None] = {}
    for reference in (part.strip() for part in features.split(",")):
        view, has_view, feature = reference.partition(":")
        if view == "service" and feature in plan.services:
            asked |= dict.fromkeys(v for v, _ in plan.services[feature].features)
        elif has_view:
            asked[view] = None
        else:
            near = (v for v in plan.views.values() if {e.name for e in v.entities} <= wanted)
            asked |= dict.fromkeys(
                v.name for v in near if reference in {f.name for f in v.features}
            )
    missing = [plan.views[v] for v in asked.keys() - _served(url) if v in plan.views]
    if not missing:
        return None
    view_plan = min(missing, key=lambda v: v.name)
    name = view_plan.name
    deploy = f"millrace stream deploy {name}"
    if view_plan.source.stream is None:
        deploy = f"millrace upload {name}"
    return NotDeclared(
        f"the view {name!r} is declared, and not deployed",
        where=str(view_plan.where),
        fix=deploy if view_plan.is_online else "remove `online: false`, then deploy it",
    )


def _served(url: str) -> set[str]:
    """Return the views that the server serves; none where it says that it is not ready."""
    try:
        with urllib.request.urlopen(f"{url}/v1/ready", timeout=_TIMEOUT_S) as reply:  # noqa: S310
            return set(json.load(reply)["views"])
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError):
        return set()


def _refusal(status: int, body: bytes, url: str) -> ServingError:
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ServingError(f"the server answered {status}", where=url, fix="millrace logs server")
    kind = NotDeclared if status == _NOT_FOUND else ServingError
    return kind(told["message"], where=told["where"], fix=told["fix"])


def _show(answer: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{answer['entity_name']} {_text(answer['key'])}: {answer['status']}"
    table = Table(
        "feature",
        "value",
        "ts",
        "version",
        "status",
        title=title,
        caption=f"as of {answer['as_of']}",
    )
    table.columns[1].justify = "right"
    for name, feature in answer["features"].items():
        style = None if feature["status"] == "PRESENT" else "yellow"
        table.add_row(
            name,
            _text(feature["value"]),
            _text(feature["ts"]),
            feature["version"],
            feature["status"],
            style=style,
        )
    page.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
