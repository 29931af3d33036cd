"""``schema``: the JSON Schema of declarations, by which editors complete and check them."""

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(schema)


def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of declarations in YAML.

    A line at the head of a file names it to editors: # yaml-language-server: $schema=PATH
    """
    typer.echo(schema_text(), nl=False)


def schema_text() -> str:
    """Return the schema as it is printed, and kept as ``docs/millrace.schema.json``."""
    import json

    from millrace.schema import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
