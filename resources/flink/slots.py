"""How many slots the local Flink is asked to have: a file in its folder, whose number only grows.

Who submits a job asks for what it lacks; the stack starts a TaskManager for each ``SLOTS_A_WORKER`` of
them, beside those that run, so that no job is disturbed. The number outlives a restart of Flink.
"""

import os
from pathlib import Path

SLOTS_A_WORKER = 8
MOST_WORKERS = 8
"""TaskManagers of one machine; more jobs than they have slots belong on a cluster."""

MOST_SLOTS = SLOTS_A_WORKER * MOST_WORKERS


def wanted_slots(home: Path) -> int:
    """Return how many slots the local Flink of a home is asked to have; at least one worker's."""
    try:
        asked = int(_file(home).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        asked = 0
    return min(max(asked, SLOTS_A_WORKER), MOST_SLOTS)


def wanted_workers(home: Path) -> int:
    """Return how many TaskManagers have the slots that are asked for."""
    return -(-wanted_slots(home) // SLOTS_A_WORKER)


def ask_for_slots(home: Path, slots: int) -> None:
    """Ask for at least so many slots, as far as one machine may have them; never for fewer."""
    file = _file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(f".{os.getpid()}")
    written.write_text(str(max(slots, wanted_slots(home))), encoding="utf-8")
    written.replace(file)


def _file(home: Path) -> Path:
    return home / "flink" / "slots"
