"""The identity of what is told: which work, of which run, in whose hands.

Run ids are deterministic, so that any process can name a run that another one began: UUIDv7 of the
instant at which the outer run started, with a digest of ``<dagster run>/<job>/<attempt>`` for its
random part. One id is one run of one job, ever.
"""

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lineage import facets
from lineage.datasets import Dataset
from resources.endpoints import start_mark

End = Literal["COMPLETE", "FAIL", "ABORT"]

BACKFILL_JOB = "dagster/backfill"


@dataclass(frozen=True)
class Backfill:
    """A Dagster backfill: the root of the runs that it launched."""

    id: str
    started_at: datetime

    @property
    def run_id(self) -> str:
        """Its run id in lineage; Dagster's own is no UUID."""
        return static_run_id(self.started_at, f"backfill/{self.id}")


@dataclass(frozen=True)
class Enclosing:
    """The Dagster run that work is part of.

    Attributes:
        run_id: Dagster's; as it is a UUID it is the run id in lineage too.
        job: name of the Dagster job.
        started_at: when the run began, the same for whoever asks.
        attempt: how often the step was retried within the run.
        backfill: what launched the run; None for a run on its own.
        tags: of the run, as far as they tell something about it.
    """

    run_id: str
    job: str
    started_at: datetime
    attempt: int = 0
    backfill: Backfill | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def job_name(self) -> str:
        """The job's name in lineage."""
        return f"dagster/{self.job.strip('_').lower()}"

    @property
    def facet(self) -> facets.Facet:
        """The ``parent`` facet of work within."""
        if self.backfill is None:
            return facets.parent(self.run_id, self.job_name)
        return facets.parent(self.run_id, self.job_name, self.backfill.run_id, BACKFILL_JOB)


_ENCLOSING: ContextVar[Enclosing | None] = ContextVar("enclosing_dagster_run", default=None)


@contextmanager
def within(outer: Enclosing) -> Iterator[None]:
    """Make a Dagster run the parent of all work that begins in the block and names no other.

    For work that knows nothing of Dagster, such as an upload. Not for generators: their callers
    would be within too.
    """
    token = _ENCLOSING.set(outer)
    try:
        yield
    finally:
        _ENCLOSING.reset(token)


def current_enclosing() -> Enclosing | None:
    """Return the Dagster run that the caller is within; None if there is none."""
    return _ENCLOSING.get()


@dataclass(frozen=True)
class Work:
    """One run of one job, as it is when it starts.

    Attributes:
        owner: who knows whether it is over: ``dagster:<run>``, ``backfill:<id>``,
            ``process:<host>:<pid>:<mark>`` or ``stream:<view>``.
        enclosing: the Dagster run it is part of.
    """

    run_id: str
    job: str
    owner: str
    started_at: datetime
    enclosing: Enclosing | None = None
    job_facets: Mapping[str, Any] = field(default_factory=dict)
    run_facets: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()

    @classmethod
    def of(
        cls, job: str, started_at: datetime, *, part_of: Enclosing | None = None, **told: Any
    ) -> "Work":
        """Return work of a Dagster run, or without one of this process.

        Args:
            job: its name, such as ``events/card_transactions``.
            started_at: when it starts; enters the id if there is no Dagster run.
            part_of: the Dagster run; None for the one that the caller is ``within``, if any.
            told: facets, inputs and outputs.
        """
        part_of = part_of or current_enclosing()
        if part_of is None:
            owner = this_process()
            return cls(static_run_id(started_at, f"{owner}/{job}"), job, owner, started_at, **told)
        run_id = static_run_id(part_of.started_at, f"{part_of.run_id}/{job}/{part_of.attempt}")
        return cls(run_id, job, f"dagster:{part_of.run_id}", started_at, part_of, **told)


def static_run_id(instant: datetime, text: str) -> str:
    """Return the run id of an instant and a text: always the same, UUIDv7."""
    from openlineage.client.uuid import generate_static_uuid

    return str(generate_static_uuid(instant, text.encode()))


def this_process() -> str:
    """Return the owner of work that ends with this process at the latest."""
    return f"process:{platform.node()}:{os.getpid()}:{start_mark(os.getpid())}"


def is_process_gone(owner: str) -> bool | None:
    """Say whether the process of an owner has ended; None if it ran on another machine."""
    _, host, pid, mark = owner.split(":", 3)
    if host != platform.node():
        return None
    return start_mark(int(pid)) != mark


def enclosing_works(outer: Enclosing) -> tuple[Work, ...]:
    """Return the Dagster run, and before it its backfill, as runs of their own.

    Work refers to them as parent and root, so they are told like any other run. They end when
    Dagster says so; see ``jobs.instance.lineage``.
    """
    kind = {"jobType": facets.job_type("DAG")}
    engine = {"processing_engine": facets.engine("Dagster", _dagster_version())}
    runs = []
    if outer.backfill is not None:
        runs.append(
            Work(
                outer.backfill.run_id,
                BACKFILL_JOB,
                f"backfill:{outer.backfill.id}",
                outer.backfill.started_at,
                job_facets=kind,
                run_facets=engine,
            )
        )
    root = {"parent": facets.parent(outer.backfill.run_id, BACKFILL_JOB)} if outer.backfill else {}
    tags = {"tags": facets.run_tags(outer.tags)} if outer.tags else {}
    runs.append(
        Work(
            outer.run_id,
            outer.job_name,
            f"dagster:{outer.run_id}",
            outer.started_at,
            job_facets=kind,
            run_facets={**engine, **root, **tags},
        )
    )
    return tuple(runs)


def _dagster_version() -> str:
    from importlib.metadata import version

    return version("dagster")


def python_version() -> str:
    """Return the version of the interpreter."""
    return sys.version.split()[0]
