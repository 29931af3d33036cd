"""The parts of the local stack that a command needs: started if they do not run, or named.

A command calls ``start_needed`` once it knows that there is something to do: after its arguments and
the declarations were found right. What runs with the settings of the command is left alone, and what
runs with others, such as without a folder of declarations, is restarted as by ``up``. A service of the
user's own counts as there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import console

if TYPE_CHECKING:
    from resources.settings import Settings
    from stack.control import Stack

NoStartFlag = Annotated[
    bool,
    typer.Option(
        "--no-start", help="Start no part of the local stack: say what is missing, exit 1."
    ),
]
"""The ``--no-start`` option of commands that need parts of the local stack."""


def start_needed(
    settings: "Settings", *parts: str, no_start: bool, is_bar_shown: bool = False
) -> None:
    """Start those of these parts that do not run, and say so; returns once they are ready.

    Args:
        settings: of the stack.
        *parts: as in ``millrace up PART``.
        no_start: say what is missing instead.
        is_bar_shown: a progress bar is on the terminal already, so plain lines are printed.

    Raises:
        EngineUnavailable: with ``no_start``, a part does not run; else, one did not become ready, or a
            Kafka of the user's own that it needs does not answer.
    """
    from stack.control import Stack

    start_missing(Stack(settings), parts, no_start=no_start, is_bar_shown=is_bar_shown)


def start_missing(
    stack: "Stack", parts: Sequence[str], *, no_start: bool = False, is_bar_shown: bool = False
) -> None:
    """Do what ``start_needed`` says, over a given stack."""
    from cli.stack import bring_up
    from millrace.errors import EngineUnavailable

    missing = stack.missing(parts)
    names, verb = ", ".join(missing), "does" if len(missing) == 1 else "do"
    if no_start:
        if missing:
            raise EngineUnavailable(
                f"{names} of the local stack {verb} not run, and --no-start says to start nothing",
                where=str(stack.settings.home),
                fix=f"millrace up {' '.join(missing)}, or leave --no-start away",
            )
        return
    if missing:
        console.print(f"{names} of the local stack {verb} not run: starting", markup=False)
    if wanted := (*missing, *stack.differing(parts)):
        _refuse_silent_kafka(stack, wanted)
        bring_up(stack, wanted, is_bar_shown=is_bar_shown)


def _refuse_silent_kafka(stack: "Stack", wanted: Sequence[str]) -> None:
    """Say at once that a Kafka of the user's own does not answer: what needs it would wait for it."""
    from resources.endpoints import kafka_bootstrap
    from resources.kafka.client import topic_names

    if stack.settings.kafka is None:
        return
    if any(part.name == "kafka" for part in stack.with_needs(wanted)):
        topic_names(kafka_bootstrap(stack.settings))
