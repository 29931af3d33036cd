"""The command ``millrace``: gathers the commands, and renders what goes wrong once.

Exit codes: 0 fine, 1 refused or failed, 2 wrong usage.
"""

import sys
from importlib import import_module

import typer

from cli.output import show_error
from millrace.errors import PlatformError

_MODULES = (
    "declare",
    "compiling",
    "preview",
    "schema",
    "stack",
    "backfill",
    "upload",
    "stream",
    "produce",
    "training",
    "lookup",
    "parity",
    "findings",
    "lineage",
    "alerts",
    "demo.command",
)
"""Modules with a ``register(app)``, in the order in which ``--help`` lists their commands.

They import what is heavy inside their functions, so that ``--help`` answers at once.
"""


def build_app() -> typer.Typer:
    """Return the command with all its parts."""
    app = typer.Typer(
        name="millrace",
        help="One declaration of a feature view; batch, stream, served value and training data.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in _MODULES:
        import_module(f"cli.{name}").register(app)
    return app


def main() -> None:
    """Run the command with the arguments of this process."""
    app = build_app()
    try:
        app()
    except PlatformError as error:
        show_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
