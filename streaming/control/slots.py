"""Room for a job before it is submitted: a job without a slot would only fail minutes later."""

import time

from millrace.errors import EngineRejected, EngineUnavailable
from resources.flink.slots import MOST_SLOTS, ask_for_slots, wanted_slots
from resources.progress import Progress
from streaming.engines import Engines

RELEASE_S = 5.0
"""A job that has just ended gives its slots back within this time."""
START_S = 120.0
"""A TaskManager has registered within this time."""
_POLL_S = 0.25


def ensure_slots(engines: Engines, view: str, needed: int, progress: Progress) -> None:
    """Return once Flink has so many slots free; the local one gets another TaskManager for them.

    A cluster that makes TaskManagers as it needs them is left to do so.

    Raises:
        EngineRejected: a Flink of the user's own, or one machine, has no room for the job.
        EngineUnavailable: Flink does not answer, or the TaskManager did not come.
    """
    if _are_free(engines, needed, RELEASE_S):
        return
    slots = engines.flink.slots()
    lacking = f"{needed} slot(s) are needed and {slots.free} of {slots.total} are free"
    own = engines.settings.flink_url
    if own is not None:
        raise EngineRejected(
            f"Flink has no room for the stream of {view}: {lacking}",
            where=own,
            fix="add a TaskManager, raise taskmanager.numberOfTaskSlots, or stop another stream: "
            "millrace stream stop VIEW",
        )
    home = engines.settings.home
    if slots.total >= MOST_SLOTS:
        raise EngineRejected(
            f"the local Flink has no room for the stream of {view}: {lacking}, and one machine has "
            f"{MOST_SLOTS} at most",
            where=str(home),
            fix="millrace stream stop VIEW, or a cluster: MILLRACE_FLINK_URL",
        )
    ask_for_slots(home, slots.total - slots.free + needed)
    progress(f"{view}: {lacking}; waiting for another TaskManager")
    if not _are_free(engines, needed, START_S):
        raise EngineUnavailable(
            f"no TaskManager came within {START_S:.0f} s for the stream of {view}: {lacking}, "
            f"{wanted_slots(home)} were asked for",
            where=str(home / "flink"),
            fix="millrace up flink; millrace logs flink",
        )


def _are_free(engines: Engines, needed: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        slots = engines.flink.slots()
        if slots.is_elastic or slots.free >= needed:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
