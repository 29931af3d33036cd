"""What a part of the stack is: a record that says how to start it and how to see that it is ready.

A part knows nothing of the supervisor that runs it, so a new one (a broker, a store) is one more
record in ``stack.catalogue``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from resources.settings import Settings


@dataclass(frozen=True)
class Context:
    """What a part may use while it describes its launch.

    Attributes:
        settings: the stack's places, as they were when the part was asked for.
        environ: the environment the programs inherit, with this part's variables made absolute.
        port: a free port of 127.0.0.1 for a purpose, the same one each time while it stays free.
        fixed_port: the same, and never another one later: with the first taken by somebody else,
            the part fails. For addresses that others keep.
        token: a secret of this launch, for parts that authenticate their clients.
    """

    settings: Settings
    environ: Mapping[str, str]
    port: Callable[[str], int]
    fixed_port: Callable[[str], int]
    token: str


@dataclass(frozen=True)
class Program:
    """One process of a part.

    Attributes:
        name: unique within the part; ``status`` shows its pid under it.
        argv: the command, never through a shell.
        env: the whole environment.
        cwd: working folder; made if absent.
        starts_after: polled before the start; the program waits until it is ready. That is no
            failure, however long it takes.
        is_wanted: polled before the start; until it says so, the part does without the program.
        prepare: called right before each start, never while the program runs; may raise
            ``PlatformError``.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    starts_after: "Callable[[], Readiness] | None" = None
    prepare: Callable[[], None] | None = None
    is_wanted: Callable[[], bool] = field(default=lambda: True)


@dataclass(frozen=True)
class Readiness:
    """One look at a part.

    Attributes:
        is_ready: it does its work.
        detail: what it waits for or what is wrong, for people; empty when ready.
        is_broken: it will not become ready by waiting, though its programs live.
    """

    is_ready: bool
    detail: str = ""
    is_broken: bool = False


READY = Readiness(is_ready=True)


@dataclass(frozen=True)
class Launch:
    """How one start of a part looks.

    Attributes:
        programs: in the order of their start; stopped in the reverse order.
        url: what people are shown; holds no secret.
        endpoint: what clients connect to; may hold a secret; empty means ``url``.
        probe: looks whether the part is ready; must return within a few seconds.
    """

    programs: tuple[Program, ...]
    url: str
    probe: Callable[[], Readiness]
    endpoint: str = ""


def never_external(_settings: Settings) -> str | None:
    """Say that no setting replaces this part by a service of the user's own."""
    return None


@dataclass(frozen=True)
class Part:
    """One part of the stack.

    Attributes:
        name: as in ``millrace up NAME``.
        describe: builds the launch. It is called again after a supervisor died, with the same
            context, to look after programs that still run: it must not disturb those.
        variables: the settings' environment variables whose change means a restart.
        external: the user's own service instead of this part, or None.
        needs: the parts it cannot work without; they are asked for with it and stopped after it.
        start_timeout_s: how long ``up`` waits for it.
        stop_timeout_s: how long its programs have between TERM and KILL.
    """

    name: str
    describe: Callable[[Context], Launch]
    variables: tuple[str, ...] = ()
    external: Callable[[Settings], str | None] = field(default=never_external)
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 180
    stop_timeout_s: float = 15
