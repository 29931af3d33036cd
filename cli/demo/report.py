"""What the demo shows: its tables, and the verdict that they add up to."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.output import page
from millrace.names import dead_letters_table, events_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from rich.table import Table

    from cli.demo.live import LiveProof
    from cli.demo.recompute import Comparison, ViewProof
    from cli.demo.sets import DemoSet
    from jobs.batch.backfill_runs import PartitionResult, RunFollower
    from resources.settings import Settings

_ROWS = "dagster/partition_row_count"
_REASONS_SHOWN = 10


@dataclass(frozen=True)
class TrainingProof:
    """A training set of the demo, built by both engines.

    Attributes:
        path: the file that Spark's came to.
        keeps_spine: its rows, order and other columns are the spine's.
        engines_differ_in: values that differ between Spark's and the one made in process.
        seconds: by engine.
    """

    source: str
    path: Path
    rows: int
    features: int
    keeps_spine: bool
    engines_differ_in: int
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Counts:
    """Where every raw row of a source went.

    Attributes:
        raw: rows of the file in the range of days.
        dirt: what was found in the file: description to rows of the whole file.
        dead_letters: refused rows by reason.
        null_keys: by view, events that belong to nobody.
        undated: rows of the whole file without a time, dead letters of no day.
    """

    source: str
    raw: int
    accepted: int
    duplicates: int
    dead_letters: Mapping[str, int]
    dirt: Mapping[str, int]
    null_keys: Mapping[str, int]
    undated: int = 0

    @property
    def rows_in(self) -> int:
        """The rows that a build of these days has read and kept or refused."""
        return self.raw + self.undated

    @property
    def is_balanced(self) -> bool:
        """In = accepted + duplicates + dead letters."""
        return self.rows_in == self.accepted + self.duplicates + sum(self.dead_letters.values())


def show_intention(settings: "Settings", sets: "Sequence[DemoSet]") -> None:
    """Say what will be done, with what, and where."""
    page.print(
        "[bold]Millrace[/bold]: one declaration, its history, a training set, and live values.\n"
    )
    for one in sets:
        views = ", ".join(one.views)
        page.print(f"  [bold]{one.source}[/bold]: {one.title}, {len(one.days)} days")
        page.print(f"    views {views}")
    page.print(f"\nState and tables go to {settings.home}.\n", soft_wrap=True)


def show_backfill(followers: "Sequence[RunFollower]", undated: Mapping[str, int]) -> None:
    """Show one line per asset, dead letters that belong to no day, and each reason of failure."""
    from jobs.batch.backfill_runs import failure_lines

    table = _table("asset", "days", "rows", "null keys", "dead letters", "duplicates", "seconds")
    for follower in followers:
        by_asset: dict[str, list[PartitionResult]] = {}
        for result in follower.results():
            by_asset.setdefault(result.asset, []).append(result)
        for asset, results in by_asset.items():
            built = [r for r in results if r.error is None]
            counters = [_ROWS, "null_keys", "dead_letters", "duplicates"]
            seconds = max((float(r.metadata.get("build_seconds", 0)) for r in built), default=0.0)
            totals = (f"{sum(r.count(name) for r in built):,}" for name in counters)
            table.add_row(asset, str(len(built)), *totals, f"{seconds:.1f}")
    page.print(table)
    for source, dead_letters in undated.items():
        page.print(
            f"  dead letters of {source} beside those of its days: {dead_letters:,} rows without a time",
            soft_wrap=True,
        )
    results = [result for follower in followers for result in follower.results()]
    for line in failure_lines(results)[:_REASONS_SHOWN]:
        page.print(f"failed: {line}", markup=False, style="red", soft_wrap=True)


def show_training(proofs: Sequence[TrainingProof]) -> None:
    """Show each training set with its size and the time each engine took."""
    table = _table("training set", "rows", "features", "in process, s", "on Spark, s")
    for proof in proofs:
        seconds = [f"{proof.seconds[engine]:.1f}" for engine in ("local", "spark")]
        table.add_row(proof.source, f"{proof.rows:,}", str(proof.features), *seconds)
    page.print(table)
    for proof in proofs:
        page.print(f"  {proof.path}", markup=False, soft_wrap=True)


def show_proofs(proofs: "Sequence[ViewProof]") -> None:
    """Show what was recomputed, and the first differences if there are any."""
    table = _table(
        "view", "features", "training rows", "values", "mismatches",
        "history rows", "values", "mismatches",
    )  # fmt: skip
    for proof in proofs:
        table.add_row(
            proof.view, str(proof.features), *_counts(proof.training), *_counts(proof.history)
        )
    page.print(table)
    for proof in proofs:
        for line in (*proof.training.shown, *proof.history.shown):
            page.print(f"  differs: {line}", markup=False, style="red", soft_wrap=True)


def _counts(found: "Comparison") -> tuple[str, str, str]:
    style = "red" if found.mismatches else "green"
    return f"{found.rows:,}", f"{found.values:,}", f"[{style}]{found.mismatches:,}[/]"


def balance(
    spark: "SparkSession",
    settings: "Settings",
    demo_set: "DemoSet",
    results: "Sequence[PartitionResult]",
) -> Counts:
    """Count a source's raw rows, and what the lake has of them."""
    from resources.lake.delta import partition_stats

    days, when = demo_set.days, demo_set.event_time
    conditions = {
        "_raw": f"{when} >= DATE'{days.start}' AND {when} < DATE'{days.end}'",
        "_undated": f"{when} IS NULL",
        **demo_set.dirt,
    }
    counted = (
        spark.read.parquet(str(demo_set.raw))
        .selectExpr(*(f"count_if({c}) AS `{name}`" for name, c in conditions.items()))
        .collect()[0]
        .asDict()
    )
    stats = partition_stats(settings, events_table(demo_set.source))
    return Counts(
        source=demo_set.source,
        raw=counted.pop("_raw"),
        undated=counted.pop("_undated"),
        accepted=sum(found.rows for day, found in stats.items() if day in days),
        duplicates=sum(r.count("duplicates") for r in results if r.asset.startswith("events/")),
        dead_letters=_dead_letters(settings, demo_set),
        dirt=counted,
        null_keys={
            view: sum(r.count("null_keys") for r in results if r.asset == f"features/{view}")
            for view in demo_set.views
        },
    )


def undated_dead_letters(settings: "Settings", sets: "Sequence[DemoSet]") -> dict[str, int]:
    """Return by source how many rows of its files had no time; sources without any are absent."""
    found = {
        one.source: sum(
            dead_letter["event_day"] is None for dead_letter in _letters(settings, one.source)
        )
        for one in sets
    }
    return {source: dead_letters for source, dead_letters in found.items() if dead_letters}


def _dead_letters(settings: "Settings", demo_set: "DemoSet") -> dict[str, int]:
    from collections import Counter

    return Counter(
        dead_letter["reason"]
        for dead_letter in _letters(settings, demo_set.source)
        if dead_letter["event_day"] is None or dead_letter["event_day"] in demo_set.days
    )


def _letters(settings: "Settings", source: str) -> "list[Mapping[str, Any]]":
    """Return the dead letters that came from files."""
    from resources.lake.delta import open_table

    table = open_table(settings, dead_letters_table(source))
    if table is None:
        return []
    columns = ["reason", "event_day", "origin"]
    rows = table.to_pyarrow_table(columns=columns).to_pylist()
    return [dead_letter for dead_letter in rows if not dead_letter["origin"].startswith("kafka:")]


def show_counts(books: Sequence[Counts]) -> None:
    """Show, per source, what was odd in the raw file and where each row went."""
    for book in books:
        page.print(f"[bold]{book.source}[/bold]: of the whole file")
        for what, rows in book.dirt.items():
            page.print(f"  {rows:>9,} {what}")
        dead_letters = (
            ", ".join(f"{n:,} {reason}" for reason, n in book.dead_letters.items()) or "none"
        )
        undated = f" + {book.undated:,} without a time, of every day" if book.undated else ""
        page.print(
            f"  {book.raw:,} rows of these days in{undated} = {book.accepted:,} accepted + {book.duplicates:,} duplicates"
            f" + dead letters ({dead_letters})"
        )
        for view, nulls in book.null_keys.items():
            page.print(f"  {nulls:>9,} events of {view} have no key: counted, served to nobody")


def show_proven(
    followers: "Sequence[RunFollower]",
    training: Sequence[TrainingProof],
    proofs: "Sequence[ViewProof]",
    books: Sequence[Counts],
    live: "LiveProof",
) -> bool:
    """Show the claims and what became of them; return True if all of them hold."""
    claims = [
        *_claims_of_build(followers, books),
        *_claims_of_values(training, proofs),
        *_claims_of_streams(live),
    ]
    page.rule("[bold]what was proven", align="left")
    table = _table("claim", "evidence", "")
    table.columns[1].justify = "left"
    for claim, evidence, holds in claims:
        table.add_row(claim, evidence, "[green]holds[/]" if holds else "[red]FAILS[/]")
    page.print(table)
    return all(holds for _, _, holds in claims)


Claim = tuple[str, str, bool]


def _claims_of_build(followers: "Sequence[RunFollower]", books: Sequence[Counts]) -> "list[Claim]":
    results = [r for f in followers for r in f.results() if r.was_asked]
    built = sum(r.error is None for r in results)
    raw = sum(book.rows_in for book in books)
    return [
        (
            "every day of every table is built",
            f"{built:,} of {len(results):,} partitions, {len(followers)} Dagster run(s)",
            built == len(results) and all(f.status == "SUCCESS" for f in followers),
        ),
        (
            "every raw row is accounted for",
            f"{raw:,} rows = accepted + duplicates + dead letters",
            all(book.is_balanced for book in books),
        ),
    ]


def _claims_of_values(
    training: Sequence[TrainingProof], proofs: "Sequence[ViewProof]"
) -> "list[Claim]":
    rows = sum(t.rows for t in training)
    differing = sum(t.engines_differ_in for t in training)
    values = sum(t.rows * t.features for t in training)
    return [
        (
            "a training set keeps its spine",
            f"{rows:,} rows, same order, other columns untouched",
            all(t.keeps_spine for t in training),
        ),
        (
            "Spark and one process agree",
            f"{values:,} values, {differing:,} differ",
            differing == 0,
        ),
        _agreement("training sets equal the recomputation", [p.training for p in proofs]),
        _agreement("features in the lake equal it too", [p.history for p in proofs]),
    ]


def _claims_of_streams(live: "LiveProof") -> "list[Claim]":
    values = sum(report.values for report in live.parity)
    differing = sum(report.differing for report in live.parity)
    within = f"p50 {live.percentile_ms(0.5)} ms, p99 {live.percentile_ms(0.99)} ms"
    return [
        (
            "an event is served soon after it was sent",
            f"{len(live.latencies_ms):,} watched of {live.sent:,} sent, {within}",
            bool(live.latencies_ms) and live.unanswered == 0,
        ),
        (
            "served values equal their recomputation",
            f"{values:,} values, {differing:,} differ",
            bool(live.parity) and all(report.is_equal for report in live.parity),
        ),
        (
            "a poisoned event stops nothing and is kept",
            f"{live.dead_letter.reason}, in {live.dead_letter.topic}",
            live.dead_letter.is_intact,
        ),
    ]


def _agreement(claim: str, found: "Sequence[Comparison]") -> "Claim":
    values = sum(one.values for one in found)
    mismatches = sum(one.mismatches for one in found)
    evidence = f"{values:,} values, {mismatches:,} mismatches"
    return claim, evidence, mismatches == 0 and all(one.values for one in found)


def show_seconds(seconds: Mapping[str, float]) -> None:
    """Show how long each step took."""
    table = _table("step", "seconds")
    for step, spent in seconds.items():
        table.add_row(step, f"{spent:.1f}")
    table.add_row("[bold]in all", f"[bold]{sum(seconds.values()):.1f}")
    page.print(table)


def show_next(settings: "Settings", url: str, api_url: str, sets: "Sequence[DemoSet]") -> None:
    """Show what was left open, and what to try."""
    from cli.demo.live import live_set

    view, live = sets[0].views[0], live_set(sets)
    training = settings.home / "demo" / f"training_spark_{sets[0].source}.parquet"
    page.rule("[bold]left open", align="left")
    links = _table("", "")
    links.columns[1].justify = "left"
    links.add_row("asset graph", f"{url}/asset-groups")
    links.add_row(f"partitions of {view}", f"{url}/assets/features/{view}?view=partitions")
    links.add_row("runs", f"{url}/runs")
    links.add_row("streams", f"{url}/assets/online/{live.watched}")
    links.add_row("online API", f"{api_url}/docs")
    links.add_row("training set", str(training))
    page.print(links, soft_wrap=True)
    page.print("\nTo try next:", style="bold")
    curl = f"curl -s {api_url}/v1/features:lookup -d '{live.question}'"
    for line in (*_commands(view, live.watched), curl):
        page.print(f"  {line}", markup=False, soft_wrap=True)


def _commands(view: str, watched: str) -> list[str]:
    views = os.environ.get("MILLRACE_VIEWS")
    return [
        ". .venv/bin/activate",
        *([f"export MILLRACE_VIEWS={views}"] if views else []),
        f"millrace plan {view}",
        f"millrace compile {view} --target spark",
        f"millrace backfill {view} --start 2013-01-01 --end 2013-01-08",
        "millrace stream status",
        f"millrace parity {watched}",
        "millrace status",
        "millrace down",
    ]


def _table(*headings: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=place == 0)
    return table
