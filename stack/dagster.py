"""The Dagster part: webserver, daemon and one code server that both of them ask.

With a code server of their own, webserver and daemon see the same code, "Reload" in the web page
reaches both, and definitions are loaded once instead of twice.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml

from millrace.errors import SetupError
from resources.settings import CHECKOUT
from stack.files import write_if_new
from stack.parts import READY, Context, Launch, Part, Program, Readiness
from stack.variables import SERVER_HOST, VARIABLES

_LOOK_TIMEOUT_S = 5
_PREPARE_TIMEOUT_S = 180

# Storage is made on first use, and two processes making it at once leave it broken ("more than
# one head present"), so it is made before any of them starts.
_PREPARE = """
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    instance.get_runs_count()
    instance.all_asset_keys()
    instance.all_instigator_state()
"""

_LOOK = """{
  workspaceOrError {
    __typename
    ... on PythonError { message }
    ... on Workspace {
      locationEntries {
        name
        loadStatus
        locationOrLoadError { __typename ... on PythonError { message } }
      }
    }
  }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""

_VARIABLES = tuple(name for name in VARIABLES if name not in {SERVER_HOST, "JAVA_HOME"})


@dataclass(frozen=True)
class CodeLocation:
    """The code Dagster loads, as ``workspace.yaml`` names it; imported from ``folder``."""

    name: str
    module: str
    attribute: str
    folder: Path


def dagster_part(project: Path = CHECKOUT) -> Part:
    """Return the record of the Dagster part.

    Args:
        project: the folder with ``workspace.yaml`` and ``dagster_home/dagster.yaml``.
    """
    return Part(
        name="dagster",
        describe=lambda context: _describe(context, project),
        variables=_VARIABLES,
        start_timeout_s=180,
        stop_timeout_s=12,
    )


def read_workspace(path: Path) -> CodeLocation:
    """Read the one Python module of a ``workspace.yaml``.

    Raises:
        SetupError: the file is absent or says something else.
    """
    fix = "it must load one python_module with module_name and attribute"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        (entry,) = document["load_from"]
        module = entry["python_module"]
        return CodeLocation(
            name=module.get("location_name", module["module_name"]),
            module=module["module_name"],
            attribute=module.get("attribute", "defs"),
            folder=(path.parent / module.get("working_directory", ".")).resolve(),
        )
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise SetupError(f"cannot use it: {error}", where=str(path), fix=fix) from error


def _describe(context: Context, project: Path) -> Launch:
    location = read_workspace(project / "workspace.yaml")
    home = context.settings.home / "dagster_home"
    code, web = context.port("code"), context.port("web")
    env = _environ(context, home)
    workspace = _prepare_home(home, project, code, location)
    _prepare_storage(home, env)

    def program(name: str, *argv: str) -> Program:
        return Program(name, (sys.executable, "-m", *argv), env, home)

    server = ("dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code))
    chosen = ("-m", location.module, "-a", location.attribute, "-d", str(location.folder))
    web_at = ("-h", "127.0.0.1", "-p", str(web), "--suppress-warnings")
    asking = ("-w", str(workspace))
    return Launch(
        programs=(
            program("code", *server, *chosen),
            program("webserver", "dagster_webserver", *web_at, *asking),
            program("daemon", "dagster._daemon", "run", *asking),
        ),
        url=f"http://127.0.0.1:{web}",
        probe=lambda: look(f"http://127.0.0.1:{web}"),
    )


def _environ(context: Context, home: Path) -> dict[str, str]:
    inherited = {
        name: value for name, value in context.environ.items() if not name.startswith("DAGSTER_")
    }
    return inherited | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        # How long the code server waits for calls in progress when it is told to stop.
        "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "3",
        "PYTHONUNBUFFERED": "1",
    }


def _prepare_home(home: Path, project: Path, port: int, location: CodeLocation) -> Path:
    """Refresh ``dagster.yaml`` from the repository; return the workspace of this stack."""
    committed = project / "dagster_home" / "dagster.yaml"
    try:
        text = committed.read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"cannot read it: {error.strerror}",
            where=str(committed),
            fix="git checkout restores it",
        ) from error
    home.mkdir(parents=True, exist_ok=True)
    write_if_new(home / "dagster.yaml", text)
    server = {"host": "127.0.0.1", "port": port, "location_name": location.name}
    workspace = home / "workspace.yaml"
    write_if_new(workspace, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return workspace


def _prepare_storage(home: Path, env: dict[str, str]) -> None:
    done = home / ".prepared"
    if done.exists():
        return
    try:
        subprocess.run(
            [sys.executable, "-c", _PREPARE],
            env=env,
            cwd=home,
            check=True,
            capture_output=True,
            text=True,
            timeout=_PREPARE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"making Dagster's storage took over {_PREPARE_TIMEOUT_S} s",
            where=str(home),
            fix="is the disk or the database in dagster.yaml slow or locked?",
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(
            f"Dagster's storage cannot be made: {last}",
            where=str(home),
            fix="see the storage section of dagster_home/dagster.yaml, or remove this folder",
        ) from error
    done.touch()


def look(url: str) -> Readiness:
    """Ask the webserver at ``url`` whether it, the code location and the daemons are in order."""
    request = urllib.request.Request(  # noqa: S310
        f"{url}/graphql",
        json.dumps({"query": _LOOK}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_LOOK_TIMEOUT_S) as answer:  # noqa: S310
            document = json.load(answer)
    except (urllib.error.URLError, HTTPException, OSError, ValueError):
        return Readiness(is_ready=False, detail="waiting for the webserver")
    data = document.get("data")
    if not data:
        return Readiness(is_ready=False, detail=f"the webserver answers {document!r:.200}")
    return judge(data)


def judge(data: dict[str, Any]) -> Readiness:
    """Judge the webserver's answer: all locations loaded and the required daemons healthy."""
    workspace = data["workspaceOrError"]
    if workspace["__typename"] == "PythonError":
        return Readiness(is_ready=False, detail=workspace["message"], is_broken=True)
    for entry in workspace["locationEntries"]:
        outcome = entry["locationOrLoadError"] or {}
        message = outcome.get("message", "")
        if entry["loadStatus"] != "LOADED" or "DagsterUserCodeUnreachableError" in message:
            return Readiness(is_ready=False, detail=f"loading {entry['name']}")
        if outcome.get("__typename") == "PythonError":
            detail = f"{entry['name']} does not load: {message.strip()}"
            return Readiness(is_ready=False, detail=detail, is_broken=True)
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    late = [d["daemonType"].lower() for d in daemons if d["required"] and not d["healthy"]]
    if late or not daemons:
        return Readiness(is_ready=False, detail=f"waiting for the daemon ({', '.join(late)})")
    return READY
