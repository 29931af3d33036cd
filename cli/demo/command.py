"""``millrace demo``: the main job on real data, end to end, with a second opinion on every claim."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import console, page, progress

if TYPE_CHECKING:
    from pathlib import Path

    from cli.demo.live import LiveProof
    from cli.demo.recompute import ViewProof
    from cli.demo.report import Counts, TrainingProof
    from cli.demo.sets import DemoSet
    from jobs.batch.backfill_runs import RunFollower
    from millrace.plan import Plan
    from resources.settings import Settings

_LINE = 90


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("demo")(demo)


@dataclass
class _Stopwatch:
    """Seconds by step, in the order of the steps."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        page.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def demo(
    *,
    fast: Annotated[
        bool, typer.Option("--fast", help="Only the flights, and only their first 60 days.")
    ] = False,
    every_day: Annotated[
        bool, typer.Option("--all", help="Every day of each set, not only the first 92.")
    ] = False,
    down: Annotated[bool, typer.Option("--down", help="Stop the stack at the end.")] = False,
) -> None:
    """Backfill real data through Dagster, stream more of it, serve it, and recompute all of that.

    May be run again at any time. Exit 1 if anything differs from what it should be.
    """
    from cli.demo.sets import demo_sets
    from resources.settings import settings_from_env

    settings = settings_from_env()
    with _stopping_at_the_end() if down else nullcontext():
        sets = demo_sets(settings, fast=fast, every_day=every_day)
        is_proven = _prove(settings, sets, is_kept=not down)
    if not is_proven:
        raise typer.Exit(1)


def _prove(settings: "Settings", sets: "Sequence[DemoSet]", *, is_kept: bool) -> bool:
    """Show it all; with ``is_kept`` also where to go on from there."""
    from cli.demo import report as demo_report
    from cli.demo.datasets import prepare_flights
    from cli.demo.sets import with_examples
    from resources.endpoints import dagster_url, server_url

    demo_report.show_intention(settings, sets)
    watch = _Stopwatch()
    with watch.step("raw data, Spark and Dagster"):
        prepare_flights(settings)
        settings = with_examples(settings, sets)
        _start(settings, "spark", "dagster")
    plan = _declared(settings)
    with watch.step("backfill through Dagster, one run per source"):
        followers = _launched(settings, plan, sets)
        # What streams and serves starts meanwhile.
        _start(settings)
        _follow(followers)
        demo_report.show_backfill(followers, demo_report.undated_dead_letters(settings, sets))
        _refuse_failures(followers)
    with watch.step("training sets"):
        training = [_train(settings, plan, one) for one in sets]
        demo_report.show_training(training)
    with watch.step("recomputed by hand-written SQL over the raw files"):
        proofs = _recompute(settings, plan, sets)
        demo_report.show_proofs(proofs)
    with watch.step("what was dirty, and where it went"):
        books = _books(settings, sets, followers)
        demo_report.show_counts(books)
    with watch.step("the same views live: real events, sent now"):
        live = _live(settings, plan, sets)
    is_proven = demo_report.show_proven(followers, training, proofs, books, live)
    demo_report.show_seconds(watch.seconds)
    if is_kept:
        demo_report.show_next(settings, dagster_url(settings), server_url(settings), sets)
    return is_proven


@contextmanager
def _stopping_at_the_end() -> Iterator[None]:
    """Stop the stack, however the demo ends."""
    from cli.stack import down
    from resources.spark.session import forget_session

    try:
        yield
    finally:
        forget_session()
        down()


def _start(settings: "Settings", *parts: str) -> None:
    from cli.stack import up

    # The stack reads the environment, as it does for `millrace up` in a shell.
    os.environ["MILLRACE_VIEWS"] = os.pathsep.join(map(str, settings.views[1:]))
    up(list(parts))


def _declared(settings: "Settings") -> "Plan":
    from resources.declarations import load_valid_plan

    plan, faults = load_valid_plan(settings)
    for fault in faults:
        console.print(f"warning: left out: {fault}", markup=False, style="yellow")
    return plan


def _launched(settings: "Settings", plan: "Plan", sets: "Sequence[DemoSet]") -> "list[RunFollower]":
    from datetime import UTC, datetime

    from jobs.batch.backfill_plan import range_runs
    from jobs.batch.backfill_runs import RunFollower, launch
    from resources.dagster.client import DagsterApi
    from resources.endpoints import dagster_url

    api = DagsterApi(dagster_url(settings))
    now = datetime.now(tz=UTC)
    runs = [run for one in sets for run in range_runs(plan, one.views, one.days, now)]
    followers = [RunFollower(api, run, launch(api, run)) for run in runs]
    for follower in followers:
        run = follower.run
        console.print(f"{run.source.name}: {len(run.assets)} assets x {len(run.days)} days")
        console.print(f"  {follower.url}", markup=False)
    return followers


def _follow(followers: "Sequence[RunFollower]") -> None:
    """Show one bar over all runs; a run's line appears when it has something new to say."""
    from jobs.batch.backfill_runs import follow

    said: dict[str, str] = {}
    with progress("waiting in the queue", sum(f.run.partitions for f in followers)) as advance:
        for follower in follow(followers):
            source = follower.run.source.name
            note = follower.note.splitlines()[0] if follower.note else follower.status.lower()
            text = (note if source in note else f"{source}: {note}")[:_LINE]
            is_new = said.get(source) != text
            said[source] = text
            done = sum(f.done for f in followers)
            advance(completed=done, description=text if is_new else None)


def _refuse_failures(followers: "Sequence[RunFollower]") -> None:
    from millrace.errors import EngineError

    failed = [f for f in followers if any(r.error for r in f.results())]
    if failed:
        raise EngineError(
            f"the backfill of {', '.join(f.run.source.name for f in failed)} did not succeed",
            where=failed[0].url,
            fix="the reasons stand above; `millrace logs spark` has the engine's side",
        )


def _train(settings: "Settings", plan: "Plan", demo_set: "DemoSet") -> "TrainingProof":
    import pyarrow.parquet as pq

    from cli.demo.recompute import differing_values
    from cli.demo.report import TrainingProof
    from cli.demo.sets import write_spine
    from offline.training.sets import Engine, build_training_set

    spine = _file(settings, "spine", demo_set)
    write_spine(demo_set, spine)
    features = [f"{view}:*" for view in demo_set.views]
    seconds: dict[str, float] = {}
    engines: tuple[Engine, ...] = ("local", "spark")
    for engine in engines:
        out = _file(settings, f"training_{engine}", demo_set)
        report = build_training_set(settings, plan, spine, features, out, engine=engine)
        seconds[engine] = report.seconds
    on_spark, local = (
        pq.read_table(_file(settings, f"training_{e}", demo_set)) for e in ("spark", "local")
    )
    labels = pq.read_table(spine)
    return TrainingProof(
        source=demo_set.source,
        path=report.out,
        rows=on_spark.num_rows,
        features=len(report.columns),
        keeps_spine=on_spark.select(labels.column_names).equals(labels),
        engines_differ_in=differing_values(on_spark, local, report.columns),
        seconds=seconds,
    )


def _file(settings: "Settings", kind: str, demo_set: "DemoSet") -> "Path":
    return settings.home / "demo" / f"{kind}_{demo_set.source}.parquet"


def _recompute(settings: "Settings", plan: "Plan", sets: "Sequence[DemoSet]") -> "list[ViewProof]":
    import pyarrow.parquet as pq

    from cli.demo.recompute import prove_view, sample_of
    from resources.spark.session import connect

    spark = connect(settings)
    proofs = []
    with progress("recomputing", sum(len(one.views) for one in sets)) as advance:
        for one in sets:
            sample = sample_of(pq.read_table(_file(settings, "training_spark", one)))
            for view in one.views:
                advance(0, description=f"recomputing {view}")
                proofs.append(prove_view(spark, settings, one, plan.view(view), sample))
                advance()
    return proofs


def _books(
    settings: "Settings", sets: "Sequence[DemoSet]", followers: "Sequence[RunFollower]"
) -> "list[Counts]":
    from cli.demo.report import balance
    from resources.spark.session import connect

    spark = connect(settings)
    results = {f.run.source.name: f.results() for f in followers}
    return [balance(spark, settings, one, results[one.source]) for one in sets]


def _live(settings: "Settings", plan: "Plan", sets: "Sequence[DemoSet]") -> "LiveProof":
    from cli.demo import live as demo_live

    one = demo_live.live_set(sets)
    versions = demo_live.deploy_streams(settings, plan, one)
    sent, watcher = demo_live.stream_and_watch(settings, plan, one, versions)
    proof = demo_live.LiveProof(
        source=one.source,
        versions=versions,
        sent=sent,
        latencies_ms=sorted(watcher.latencies_ms),
        unanswered=len(watcher.waiting),
        dead_letter=demo_live.poison(settings, plan, one.source),
        parity=demo_live.audit(settings, plan, one),
        books=demo_live.source_counts(settings, plan, one.source),
    )
    demo_live.show_live(proof)
    return proof
