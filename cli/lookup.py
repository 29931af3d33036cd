"""``lookup``: features of one or more entities, asked from the stack's own server."""

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.needs import NoStartFlag, start_needed
from cli.output import JsonFlag, page, show_json
from millrace.errors import EngineUnavailable, NotDeclared, ServingError, nearest
from millrace.references import FeatureReference

if TYPE_CHECKING:
    from millrace.errors import Fault
    from millrace.plan import Plan
    from millrace.types import DataType
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
            help="Keys: values, or name=value by join key; a composite one as name=value,name=value "
            "or as a JSON object.",
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
    from resources.declarations import load_valid_plan
    from resources.endpoints import is_running, server_url
    from resources.settings import settings_from_env

    settings = settings_from_env()
    plan, faults = load_valid_plan(settings)
    if not is_running(settings, "server") and _is_all_declared(settings, plan, faults):
        _refuse_undeclared(plan, entity, features)
    asked = keys_asked(plan, entity, keys)
    start_needed(settings, "server", no_start=no_start)
    url = server_url(settings)
    try:
        answers = [_answer(url, entity, key, features) for key in asked]
    except ServingError as error:
        undeployed = _not_deployed(plan, url, entity, features)
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


def _is_all_declared(settings: "Settings", plan: "Plan", faults: "Sequence[Fault]") -> bool:
    """Say whether nothing can be served that these declarations do not have.

    They have faults, or the store is shared, or views were deployed from other folders: then only
    the server knows.
    """
    from streaming.publications.records import RecordFiles
    from streaming.publications.uploaded_views import UploadedFiles

    if faults or settings.store_url is not None:
        return False
    home = settings.home
    served = {*RecordFiles.of(home).read_all(), *UploadedFiles.of(home).read_all()}
    return served <= plan.views.keys()


def _refuse_undeclared(plan: "Plan", entity: str, features: str) -> None:
    """Refuse what nothing here declares before parts of the stack are started for it."""
    for name in map(str.strip, entity.split(",")):
        if name not in plan.entities:
            raise NotDeclared(f"no entity {name!r}", fix=nearest(name, list(plan.entities)))
    for meant in map(FeatureReference.parse, features.split(",")):
        known: Collection[str] = plan.services if meant.is_service else plan.views
        wanted = meant.name if meant.is_service else meant.view
        if wanted is not None and wanted not in known:
            kind = "feature service" if meant.is_service else "view"
            raise NotDeclared(f"no {kind} {wanted!r}", fix=nearest(wanted, list(known)))


def keys_asked(plan: "Plan", entity: str, texts: Sequence[str]) -> list[str]:
    """Return each key as the server reads it: ``name=value`` is for people.

    Of a composite key the parts may be words of their own: ``origin=JFK dest=LAX``.

    Raises:
        ServingError: a part names no join key; those there are are named.
    """
    names = [name.strip() for name in entity.split(",")]
    if any(name not in plan.entities for name in names):
        return list(texts)
    join_keys = {plan.entities[name].join_key: plan.entities[name].type for name in names}
    if len(join_keys) == 1:
        return [_single_key(text, entity, *one) for text in texts for one in join_keys.items()]
    found: list[str] = []
    parts: dict[str, str] = {}
    for text in texts:
        name, is_named, _ = text.partition("=")
        if text.startswith("{") or not is_named or "," in text:
            found.append(text)
            continue
        if name not in join_keys:
            raise _unknown_part(text, name, entity, list(join_keys))
        parts[name] = text
        if len(parts) == len(join_keys):
            found.append(",".join(parts.values()))
            parts = {}
    return [*found, *parts.values()]


def _single_key(text: str, entity: str, join_key: str, type_: "DataType") -> str:
    name, is_named, value = text.partition("=")
    if is_named and name == join_key:
        return value
    # Text may hold anything, also what looks like a name.
    if is_named and name.isidentifier() and type_.kind not in {"string", "bytes"}:
        raise _unknown_part(text, name, entity, [join_key])
    return text


def _unknown_part(text: str, name: str, entity: str, join_keys: list[str]) -> ServingError:
    wanted = ",".join(f"{key}=…" for key in join_keys)
    return ServingError(
        f"the key {text!r} names {name!r}, which is no join key of {entity}",
        where="KEY",
        fix=f"write {wanted}; {nearest(name, join_keys)}",
    )


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


def _not_deployed(plan: "Plan", url: str, entity: str, features: str) -> NotDeclared | None:
    """Say which view is asked for that is declared here and not served; None if there is none.

    The server knows what is published, and no declarations.
    """
    wanted = {name.strip() for name in entity.split(",")}
    asked: dict[str, None] = {}
    for meant in map(FeatureReference.parse, features.split(",")):
        if meant.is_service:
            service = plan.services.get(meant.name)
            asked |= dict.fromkeys(v for v, _ in (service.features if service else ()))
        elif meant.view is not None:
            asked[meant.view] = None
        else:
            near = (v for v in plan.views.values() if {e.name for e in v.entities} <= wanted)
            asked |= dict.fromkeys(
                v.name for v in near if meant.name in {f.name for f in v.outputs}
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
    from rich.markup import escape
    from rich.table import Table

    title = escape(f"{answer['entity_name']} {_text(answer['key'])}: {answer['status']}")
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
            escape(_text(feature["value"])),
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
