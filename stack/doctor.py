"""``millrace doctor``: each thing the platform needs, looked at, with the mend where one is due."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from millrace.errors import PlatformError, SpecError
from resources.settings import CHECKOUT, Settings
from stack.control import PartStatus, Stack
from stack.jars import read_lock
from stack.java import find_java, java_home_fault
from stack.ports import choose_port

Verdict = Literal["ok", "warn", "fail"]

_GIGABYTE = 1e9
_LEAST_DISK_GB, _FAIR_DISK_GB = 1, 5
_LEAST_MEMORY_GB, _FAIR_MEMORY_GB = 3, 6
_PACKAGES = ("pyspark", "delta-spark", "dagster", "dagster-webserver", "deltalake", "pyarrow")
_SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        verdict: ``fail`` stops the platform from working, ``warn`` may.
        fix: how to mend it; empty when it is fine.
    """

    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as ``doctor --json`` shows it."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "detail": self.detail,
            "fix": self.fix,
        }


def examine(stack: Stack) -> Iterator[Finding]:
    """Yield a finding for each thing, in the order in which one would mend them."""
    settings = stack.settings
    yield _python()
    yield _packages()
    yield _java()
    yield _jars(settings)
    yield _disk(settings)
    yield _memory()
    yield _ports(settings)
    for status in stack.status():
        yield _part(status)
    yield _home(settings)
    yield _lake(settings)
    yield _data(settings)
    yield _declarations(settings)


def _python() -> Finding:
    detail = f"{sys.version.split()[0]} at {sys.executable}"
    if Path(sys.prefix) == CHECKOUT / ".venv":
        return Finding("Python", "ok", detail)
    return Finding("Python", "warn", f"{detail}, not the checkout's .venv", "make setup")


def _packages() -> Finding:
    try:
        found = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    except PackageNotFoundError as error:
        return Finding("packages", "fail", f"{error.name} is not installed", "make setup")
    return Finding("packages", "ok", found)


def _java() -> Finding:
    try:
        java = find_java()
    except PlatformError as error:
        return Finding("Java", "fail", error.what, error.fix)
    detail = f"{java.version} from {java.origin}, {java.home}"
    if fault := java_home_fault():
        return Finding("Java", "warn", f"{fault}; {detail} is used", "unset or mend JAVA_HOME")
    return Finding("Java", "ok", detail)


def _jars(settings: Settings) -> Finding:
    try:
        jars = read_lock()
    except PlatformError as error:
        return Finding("jars", "fail", error.what, error.fix)
    broken = [jar.name for jar in jars if not jar.is_intact(settings.cache)]
    if broken:
        detail = f"missing or damaged: {', '.join(broken)}"
        return Finding("jars", "fail", detail, "make setup, or: python -m stack.jars fetch")
    return Finding("jars", "ok", f"{len(jars)} with the right checksum in {settings.cache}")


def _disk(settings: Settings) -> Finding:
    free_gb = shutil.disk_usage(_existing(settings.home)).free / _GIGABYTE
    detail = f"{free_gb:.1f} GB free at {settings.home}"
    verdict = _at_least(free_gb, _LEAST_DISK_GB, _FAIR_DISK_GB)
    fix = "" if verdict == "ok" else "free some, or set MILLRACE_HOME to a larger disk"
    return Finding("disk", verdict, detail, fix)


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    free_gb = memory.available / _GIGABYTE
    detail = f"{free_gb:.1f} of {memory.total / _GIGABYTE:.1f} GB available"
    verdict = _at_least(free_gb, _LEAST_MEMORY_GB, _FAIR_MEMORY_GB)
    fix = "" if verdict == "ok" else "the stack takes 2 to 6 GB: close something, or run parts"
    return Finding("memory", verdict, detail, fix)


def _at_least(value: float, least: float, fair: float) -> Verdict:
    if value < least:
        return "fail"
    return "warn" if value < fair else "ok"


def _ports(settings: Settings) -> Finding:
    try:
        port = choose_port(f"{settings.home}/doctor")
    except PlatformError as error:
        return Finding("ports", "fail", error.what, error.fix)
    return Finding("ports", "ok", f"127.0.0.1 can be bound, {port} for one")


def _part(status: PartStatus) -> Finding:
    detail = " ".join(filter(None, (status.state, status.url, status.detail)))
    verdicts: dict[str, Verdict] = {"running": "ok", "external": "ok", "failed": "fail"}
    verdict = verdicts.get(status.state, "warn")
    start = f"millrace up {status.name}"
    fixes = {"stopped": start, "failed": f"millrace logs {status.name}; then {start}"}
    return Finding(status.name, verdict, detail, fixes.get(status.state, ""))


def _home(settings: Settings) -> Finding:
    return _writable("home", settings.home, "MILLRACE_HOME")


def _lake(settings: Settings) -> Finding:
    if "://" in settings.lake:
        return Finding("lake", "ok", f"{settings.lake} (not looked into from here)")
    return _writable("lake", Path(settings.lake), "MILLRACE_LAKE")


def _writable(subject: str, folder: Path, variable: str) -> Finding:
    nearest = _existing(folder)
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding(subject, "ok", f"{folder} can be written")
    fix = f"set {variable} to a folder you can write to"
    return Finding(subject, "fail", f"{folder} cannot be written (because of {nearest})", fix)


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _data(settings: Settings) -> Finding:
    fix = "only the sources whose path names ${MILLRACE_DATA} need it: export MILLRACE_DATA=…"
    if settings.data is None:
        return Finding("MILLRACE_DATA", "warn", "not set", fix)
    if "://" not in settings.data and not Path(settings.data).is_dir():
        return Finding("MILLRACE_DATA", "warn", f"{settings.data} is no folder", fix)
    return Finding("MILLRACE_DATA", "ok", settings.data)


def _declarations(settings: Settings) -> Finding:
    from resources.declarations import load_plan

    try:
        plan = load_plan(settings)
    except SpecError as error:
        shown = "; ".join(f"{fault.where}: {fault.what}" for fault in error.faults[:_SHOWN_FAULTS])
        return Finding("declarations", "fail", shown, "millrace validate lists every fault")
    except PlatformError as error:
        return Finding("declarations", "fail", str(error), error.fix)
    return Finding("declarations", "ok", f"{len(plan.views)} feature views, no fault")
