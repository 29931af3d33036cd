"""``millrace compile``: what an engine would be told, printed. No engine is needed."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.output import JsonFlag, show_json

if TYPE_CHECKING:
    from millrace.plan import ViewPlan

Target = Literal["spark", "flink", "serving", "lineage", "checks", "expectations"]

EVENTS = "events"
"""The table that the printed Spark queries read; a run registers its own."""


def artifact(view: "ViewPlan", target: Target) -> str:
    """Return what a target is told of a view, as text that ends with a line break."""
    return _ARTIFACTS[target](view)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compile")(compile_view)


def compile_view(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="Name of a feature view.")],
    target: Annotated[Target, typer.Option("--target", help="Whose artifact to print.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Print what a target is told of a view; no engine is needed."""
    from resources.declarations import load_plan
    from resources.settings import settings_from_env

    plan = load_plan(settings_from_env()).view(view)
    text = artifact(plan, target)
    if as_json:
        show_json({"view": plan.name, "fingerprint": plan.fingerprint, target: _value(text)})
    else:
        typer.echo(text, nl=False)


def _spark(view: "ViewPlan") -> str:
    from millrace.compile.spark import measure_query, tile_query

    measures, tiles = measure_query(view, EVENTS), tile_query(view, EVENTS)
    return f"-- measures\n{measures};\n\n-- tiles\n{tiles};\n"


def _flink(view: "ViewPlan") -> str:
    from millrace.compile.flink import stream_job

    return stream_job(view).text


def _serving(view: "ViewPlan") -> str:
    from millrace.compile.serving import serving_plan

    return _document(serving_plan(view))


def _lineage(view: "ViewPlan") -> str:
    from millrace.compile.lineage import lineage

    return _document(lineage(view))


def _checks(view: "ViewPlan") -> str:
    from millrace.compile.checks import check_rules

    return _document([rule.document() for rule in check_rules(view)])


def _expectations(view: "ViewPlan") -> str:
    from checks.quality.suites import row_suite, suite
    from millrace.compile.checks import check_rules

    table, rules = f"features/{view.name}", check_rules(view)
    return _document({"metrics": suite(table, rules), "rows": row_suite(table, rules)})


def _document(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _value(text: str) -> Any:
    """A JSON document as itself, so that it is not JSON within JSON; SQL as text."""
    return json.loads(text) if text[0] in "[{" else text


_ARTIFACTS: Mapping[Target, Callable[["ViewPlan"], str]] = {
    "spark": _spark,
    "flink": _flink,
    "serving": _serving,
    "lineage": _lineage,
    "checks": _checks,
    "expectations": _expectations,
}
