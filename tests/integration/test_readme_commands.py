"""Every command of the README runs as printed, in one shell, against a real stack."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.demo.datasets import prepare_flights
from resources.settings import CHECKOUT, settings_from_env

pytestmark = pytest.mark.services

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
DEADLINE_S = 600


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder that looks like the checkout to the commands, and the environment of its shell."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    ours = {"MILLRACE_VIEWS", "MILLRACE_LAKE", "MILLRACE_DATA", "MILLRACE_HOME"}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    env["MILLRACE_HOME"] = str(tmp_path / ".millrace")
    prepare_flights(settings_from_env(env))
    try:
        yield tmp_path, env
    finally:
        subprocess.run(
            [sys.executable, "-m", "cli.main", "down"], env=env, cwd=CHECKOUT, check=True
        )


def saved_view() -> tuple[str, str]:
    """Return the path and the text of the view that the README tells one to save."""
    found = re.search(r"saved as `([^`]+)`:\s+```yaml\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1], found[2]


def commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def test_the_commands_of_the_readme_do_what_it_says(
    newcomer: tuple[Path, dict[str, str]],
) -> None:
    folder, env = newcomer
    path, text = saved_view()
    (folder / path).parent.mkdir()
    (folder / path).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(commands())],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "no faults" in done.stdout
    rows = list(csv.DictReader((folder / "training.csv").read_text("utf-8").splitlines()))
    assert [row["origin"] for row in rows] == ["JFK", "LGA"]
    assert [row["label"] for row in rows] == ["1", "0"]
    # Two of the busiest routes: a week of each has dozens of departures.
    assert all(int(row["departures_7d"]) > 50 for row in rows)
    assert all(row["dep_delay_avg_1d"] for row in rows)
