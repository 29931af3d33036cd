"""``preview``: the newest values of a view out of its raw files, in this process."""

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import JsonFlag, console, page, progress, show_json

if TYPE_CHECKING:
    from millrace.plan import Plan, ViewPlan
    from offline.preview import Preview


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="preview")(preview)


def preview(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="Name of a feature view.")],
    entity: Annotated[
        str | None,
        typer.Option(
            help="Only events of one entity: its key, a value; a composite one as "
            "name=value,name=value or as a JSON object."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only events from a day on, 2018-04-01, or within a time before the newest: 7d."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many events.")] = 10,
    max_rows: Annotated[
        int, typer.Option(min=1, help="How many raw rows may be read, into memory.")
    ] = 2_000_000,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Show a view's values as of its newest events, out of the raw files; nothing is built."""
    from offline.preview import preview_view
    from resources.declarations import load_plan
    from resources.settings import settings_from_env

    settings = settings_from_env()
    plan = load_plan(settings)
    view_plan = plan.view(view)
    key = None if entity is None else _key(plan, view_plan, entity)
    with progress(f"preview of {view}") as advance:
        found = preview_view(
            settings,
            view_plan,
            limit=limit,
            key=key,
            since=since,
            max_rows=max_rows,
            progress=lambda text: advance(description=text),
        )
    if as_json:
        show_json(_as_json(view_plan, found))
    else:
        _show(view_plan, found)


def _key(plan: "Plan", view: "ViewPlan", text: str) -> dict[str, Any]:
    """Return the value of each join key that ``--entity`` names, read as ``lookup`` reads it."""
    from cli.lookup import keys_asked
    from millrace.errors import DataError
    from serving.keys import key_of_text, key_values

    join_keys = tuple((e.join_key, e.type) for e in view.entities)
    parts = [text] if len(join_keys) == 1 else text.split()
    texts = keys_asked(plan, ",".join(e.name for e in view.entities), parts)
    if len(texts) != 1:
        raise DataError(
            f"{text!r} names {len(texts)} keys", where="--entity", fix="name one entity's key"
        )
    return key_values(join_keys, key_of_text(join_keys, texts[0]), "--entity")


def _as_json(view: "ViewPlan", found: "Preview") -> dict[str, Any]:
    rows = [{name: _plain(cell) for name, cell in row.items()} for row in found.table.to_pylist()]
    read, verdicts = found.read, found.verdicts
    return {
        "view": view.name,
        "fingerprint": view.fingerprint,
        "rows": rows,
        "read": {
            "from": None if read is None else read.start,
            "rows": verdicts.rows,
            "files": found.files,
            "duplicates": verdicts.duplicates,
            "dead_letters": dict(sorted(verdicts.dead_letters.items())),
            "unreadable": dict(found.unreadable),
        },
    }


def _plain(cell: Any) -> Any:
    """Return a cell as JSON has it: instants in ISO-8601, bytes in base64, decimals exact, as text."""
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(cell, date):
        return cell.isoformat()
    if isinstance(cell, bytes):
        from base64 import b64encode

        return b64encode(cell).decode()
    if isinstance(cell, list):
        return [_plain(one) for one in cell]
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


def _show(view: "ViewPlan", found: "Preview") -> None:
    from rich.markup import escape
    from rich.table import Table

    for path, error in found.unreadable.items():
        console.print(f"warning: {path} is left out: {error}", style="yellow", markup=False)
    names = found.table.column_names
    table = Table(
        *names, title=f"{view.name}: newest {found.table.num_rows} event(s), newest first"
    )
    for row in found.table.to_pylist():
        table.add_row(*(escape(_text(row[name])) for name in names))
    page.print(table)
    page.print(_read_line(found), soft_wrap=True)


def _text(cell: Any) -> str:
    plain = _plain(cell)
    if plain is None:
        return "-"
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _read_line(found: "Preview") -> str:
    verdicts = found.verdicts
    dead = sum(verdicts.dead_letters.values())
    reasons = ", ".join(f"{count:,} {why}" for why, count in sorted(verdicts.dead_letters.items()))
    told = f" ({reasons})" if reasons else ""
    return (
        f"{verdicts.rows:,} rows of {found.files} file(s) read, {verdicts.duplicates:,} duplicates, "
        f"{dead:,} dead letters{told}; nothing was written"
    )
