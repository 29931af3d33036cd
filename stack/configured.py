"""What is configured and shows late or never: the lake's place, alerts, lineage, unknown names.

A fault of these shows late or never: an alerts' file is read when something is to be told, and a
misspelt variable says nothing. So ``millrace doctor`` and ``millrace up`` look; nothing is connected.
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from millrace.errors import PlatformError
from resources.configuration.model import settings_there_are
from resources.configuration.secret import Secret
from resources.settings import Settings, setting_place, settings_shown
from stack.finding import Finding, faults_found
from stack.processes import HOME_VARIABLE
from stack.variables import VARIABLES

_PREFIX = "MILLRACE_"
_OF_TESTS = ("MILLRACE_TEST_", "MILLRACE_KEEP_")
_TIMEOUT_S = 1.0


def examine_configuration(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Yield findings about the lake's place, alerts, the receivers of lineage, secrets, variables."""
    environ = os.environ if environ is None else environ
    yield from _lake(settings)
    yield from _alerts(settings, environ)
    yield from _lineage(settings)
    yield from _secrets(settings)
    yield from _unknown_variables(settings, environ)


def _lake(settings: Settings) -> Iterator[Finding]:
    from resources.lake.delta import refuse_unusable_place

    try:
        refuse_unusable_place(settings)
    except PlatformError as error:
        yield from faults_found("lake", "fail", error)


def _alerts(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    from alerts.configuration import load_config

    try:
        config = load_config(settings)
    except PlatformError as error:
        yield from faults_found("alerts", "fail", error)
        return
    for spec in config.sinks.values():
        try:
            spec.open(environ)
        except PlatformError as error:
            yield from faults_found("alerts", "warn", error)
    yield Finding("alerts", "ok", f"told to {', '.join(config.sinks)}")


def _lineage(settings: Settings) -> Iterator[Finding]:
    from lineage.receivers import FileReceiver, receivers

    try:
        found = receivers(settings, timeout_s=_TIMEOUT_S)
    except PlatformError as error:
        yield from faults_found("lineage", "fail", error)
        return
    for one in found:
        if isinstance(one, FileReceiver) and (fault := one.fault()):
            place = setting_place("lineage.receivers")
            detail = f"{place}: {one.name} cannot be written: {fault}"
            yield Finding("lineage", "warn", detail, "name a file that can be written")
    told = ", ".join(one.name for one in found) or "nobody"
    yield Finding("lineage", "ok", f"told to {told}, as {settings.lineage_namespace}")


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Read those that lie on this machine; a vault is asked by whoever connects."""
    database = settings.postgres
    given = [settings.lineage_api_key]
    given += [] if database is None else [database.password, _secret(database.user)]
    for one in given:
        if one is not None and not one.text.startswith("vault:"):
            try:
                one.reveal()
            except PlatformError as error:
                yield from faults_found("settings", "warn", error)


def _secret(value: object) -> Secret | None:
    return value if isinstance(value, Secret) else None


def _unknown_variables(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    known = {one.variable for one in settings_there_are().values()} | {*VARIABLES, HOME_VARIABLE}
    known -= {"JAVA_HOME"}
    odd = [
        name
        for name in sorted(environ)
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_OF_TESTS)
    ]
    for name in odd:
        if _is_referred_to(settings, name):
            continue
        # Without the prefix, in which all names are alike.
        rest = {one.removeprefix(_PREFIX): one for one in sorted(known)}
        close = get_close_matches(name.removeprefix(_PREFIX), list(rest), n=1)
        fix = f"did you mean {rest[close[0]]}?" if close else f"unset {name}"
        yield Finding("settings", "warn", f"{name} is set, and nothing reads it", fix)


def _is_referred_to(settings: Settings, name: str) -> bool:
    """Say whether settings, the alerts' file or declarations name a variable of the user's own."""
    from alerts.configuration import DEFAULT_FILE
    from resources.declarations import declaration_files

    if any(one.value == f"env:{name}" for one in settings_shown()):
        return True
    files = [settings.alerts or DEFAULT_FILE, *declaration_files(settings)]
    return any(name in _text_of(file) for file in files)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
