"""How many incidents does a real fault open, and how many does a quiet month?

    python -m benchmarks.checks.incidents --data DIR [--write] [cards retail flights]

Each day of a source and of its views is built and judged in turn, as in operation, and what the
checks find goes through the alerts' own decision. Once undamaged: what opens then is false, but for
the days that the world itself damaged (``WORLD``). Once with faults, each mended the day after it
ended, when its days and the features since are built again: what opens beyond the first time belongs
to the fault before it.
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from alerts.causes import Causes
from alerts.conditions import Condition, Transition
from alerts.decision import decide
from alerts.facts import SEVERITIES, WHOLE, Fact, Subject
from alerts.folding import Folds
from benchmarks.checks import damages
from benchmarks.checks.days import FILES, Dataset, read_dataset, read_plan, split_by_day
from benchmarks.checks.features import features_of
from benchmarks.checks.study import recent
from checks.quality.evaluations import check_name, graded
from jobs.alerts.causes import reach_of_views
from millrace.calendar import day_ms, day_of
from millrace.durations import DAY_MS, HOUR_MS, MINUTE_MS
from millrace.plan import Plan
from millrace.quality.finding import Finding
from millrace.quality.judge import judge_day
from millrace.quality.profile import DayProfile
from resources.dagster.asset_keys import events_path, features_path

FIRST_FAULT = 42
SEED = 7
DAYS_A_MONTH = 30.4

WORLD: Mapping[str, Mapping[date, str]] = {
    "retail": {
        date(2011, 4, 7): "no rows from 14:00 to 16:00",
        date(2011, 12, 9): "the file ends at noon",
    },
    "flights": {
        date(2013, 2, 8): "a blizzard grounded New York",
        date(2013, 2, 9): "a blizzard grounded New York",
        date(2014, 1, 1): "the file ends at five in the morning, UTC",
    },
    "cards": {},
}
"""Days that are damaged as they came; what they open is no false alarm."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the files of some days.

    Attributes:
        damage: what becomes of the rows of each day.
        days: how long it lasts before somebody mends it.
        is_missing: there is no file that can be read: nothing is built for the day.
    """

    kind: str
    damage: damages.Damage | None = None
    days: int = 1
    is_missing: bool = False


MISSING = (
    Fault("late file", is_missing=True),
    Fault("unreadable file", is_missing=True),
)


def faults_of(example: str) -> tuple[Fault, ...]:
    """Return what is done to a source, in the order in which it is done."""
    amount, key, factor = {
        "cards": ("amount", "customer_id", 100.0),
        "retail": ("unit_price", "country", 100.0),
        "flights": ("distance_miles", "tailnum", 1.609),
    }[example]
    has_id = example != "retail"
    twice = damages.repeated({"cards": "transaction_id", "flights": "flight_id"}.get(example))
    return (
        Fault("missing hour", damages.missing_hour()),
        Fault("column nulled", damages.nulls(amount, 1.0)),
        MISSING[0],
        Fault("unit change, three days", damages.times("unit change", amount, factor), days=3),
        Fault("yesterday's file again", twice)
        if has_id
        else Fault("file twice", damages.doubled()),
        Fault("nulls in a fifth", damages.nulls(key, 0.2)),
        Fault("truncated file", damages.truncated(0.6)),
        MISSING[1],
        Fault("frozen column", damages.frozen(amount, 0.0)),
        Fault("time zone", damages.zone_shift(5)),
    )


@dataclass(frozen=True)
class Placed:
    """A fault on its days."""

    fault: Fault
    days: tuple[date, ...]

    @property
    def mended(self) -> date:
        """After the build of this day its days are built again."""
        return self.days[-1] + timedelta(1)

    def is_seen(self, day: date) -> bool:
        """Say whether a day is first built from what is damaged."""
        return self.days[0] <= day <= self.mended


@dataclass
class Table:
    """One judged table, whole and damaged."""

    name: str
    dataset: Dataset
    clean: Mapping[date, DayProfile]
    damaged: Mapping[date, DayProfile]
    history: dict[date, DayProfile] = field(default_factory=dict)

    def judge(self, day: date, profile: DayProfile) -> tuple[Finding, ...]:
        """Judge a day against those before it, and keep it unless it is held back."""
        earlier = recent(list(self.history.values()), day)
        findings = judge_day(profile, earlier, self.dataset.rules)
        self.history.pop(day, None)
        if not any(f.is_blocking for f in findings):
            self.history[day] = profile
        return findings


@dataclass
class Watcher:
    """The alerts' decision over the days, without a database."""

    folds: Folds
    conditions: dict[str, Condition] = field(default_factory=dict)
    opened: list[Transition] = field(default_factory=list)

    def look(self, facts: Sequence[Fact], now_ms: int) -> None:
        """Decide of what was found, and twice more until nothing waits."""
        for later_ms in (0, self.folds.hold_ms, self.folds.settle_ms + MINUTE_MS):
            asked = {fact.fingerprint for fact in facts}
            is_open = {n: c for n, c in self.conditions.items() if c.open_incident}
            asked |= {c.incident.under for c in is_open.values() if c.incident}
            known = {n: self.conditions[n] for n in asked if n in self.conditions} | is_open
            decision = decide(
                known,
                facts,
                now_ms=now_ms + later_ms,
                renotify_ms=DAY_MS,
                route=lambda *_: ("log",),
                folds=self.folds,
            )
            self.conditions |= decision.changed
            self.opened += [one for one in decision.transitions if one.change == "opened"]


def facts_of(table: str, day: date, findings: Sequence[Finding], at_ms: int) -> Iterator[Fact]:
    """Yield what the checks of a day say, as the evaluations of Dagster do."""
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(check_name(finding.rule), []).append(finding)
    for check, found in by_check.items():
        failed = any(f.is_alarm for f in found)
        worst = graded(found).value.lower()
        subject = Subject("check", table, check, day.isoformat())
        for severity in SEVERITIES:
            yield Fact(subject, severity, not (failed and severity == worst), at_ms)


@dataclass
class House:
    """A source and its views over all their days.

    Attributes:
        placed: the faults; none for the undamaged walk.
    """

    tables: Sequence[Table]
    watcher: Watcher
    placed: Sequence[Placed] = ()

    def walk(self) -> list[Transition]:
        """Build day after day, mend each fault when it is over, and return what opened."""
        for day in self.tables[0].dataset.all_days:
            now_ms = day_ms(day) + DAY_MS + 3 * HOUR_MS
            self.watcher.look(list(self._build(day, now_ms)), now_ms)
            for one in self.placed:
                if one.mended == day:
                    later_ms = now_ms + 6 * HOUR_MS
                    self.watcher.look(list(self._mend(one, later_ms)), later_ms)
        return self.watcher.opened

    def _build(self, day: date, at_ms: int) -> Iterator[Fact]:
        seen = next((one for one in self.placed if one.is_seen(day)), None)
        if seen is not None and seen.fault.is_missing and day in seen.days:
            yield _missing(seen.fault, self.tables[0].name, day, at_ms, is_ok=False)
            return
        for table in self.tables:
            profile = (table.clean if seen is None else table.damaged)[day]
            yield from self._judged(table, day, profile, at_ms)

    def _judged(self, table: Table, day: date, profile: DayProfile, at_ms: int) -> Iterator[Fact]:
        yield from facts_of(table.name, day, table.judge(day, profile), at_ms)

    def _mend(self, one: Placed, at_ms: int) -> Iterator[Fact]:
        """Build the bad days again, and what was built of the day after them."""
        if one.fault.is_missing:
            yield _missing(one.fault, self.tables[0].name, one.days[0], at_ms, is_ok=True)
        for table in self.tables:
            for day in (*one.days, one.mended):
                yield from self._judged(table, day, table.clean[day], at_ms)


def _missing(fault: Fault, table: str, day: date, at_ms: int, *, is_ok: bool) -> Fact:
    named = Subject("partition", table, "", day.isoformat())
    subject = Subject("late", table) if fault.kind == "late file" else named
    return Fact(subject, "error", is_ok, at_ms)


@dataclass(frozen=True)
class Opened:
    """One fault, and the incidents that it opened, each with its severity."""

    fault: str
    day: str
    incidents: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What became of one source and its views.

    Attributes:
        false_errors, false_warnings: incidents of the undamaged walk by table, of days with rows.
        empty_days: incidents of ``rows``, of days without any.
        world: incidents of days that the world damaged.
        months: how long the walk is.
    """

    source: str
    months: float
    false_errors: Mapping[str, int]
    false_warnings: Mapping[str, int]
    empty_days: int
    world: tuple[str, ...]
    faults: tuple[Opened, ...]
    conditions_failed: int


def place(dataset: Dataset, faults: Sequence[Fault]) -> list[Placed]:
    """Spread faults evenly over the days; a day without rows, or that cannot be damaged, moves on."""
    days = dataset.all_days
    step = (len(days) - FIRST_FAULT - 8) // len(faults)
    placed = []
    for number, fault in enumerate(faults):
        first = FIRST_FAULT + number * step
        while not all(days[first + n] in dataset.days for n in range(-1, fault.days + 2)):
            first += 1
        placed.append(Placed(fault, tuple(days[first + n] for n in range(fault.days))))
    return placed


def damage(dataset: Dataset, placed: Sequence[Placed]) -> pa.Table:
    """Return all rows of a source, those of the faults' days damaged or absent."""
    random = np.random.default_rng(SEED)
    rows = dict(dataset.days)
    for one in placed:
        for day in one.days:
            if one.fault.damage is None:
                del rows[day]
                continue
            table = one.fault.damage.apply(dataset, day, random)
            if table is None:
                raise SystemExit(f"{day} cannot be damaged: {one.fault.kind}")
            # Miles times 1.609 in a column of whole numbers lose their fractions, as they would in a file.
            rows[day] = table.cast(dataset.days[day].schema, safe=False)
    return pa.concat_tables([rows[day] for day in sorted(rows)]).sort_by(dataset.event_time)


def study(data: Path, example: str) -> Result:
    """Walk through one source twice, whole and with faults."""
    plan, dataset = read_plan(example), read_dataset(data, example)
    source = next(iter(plan.sources.values()))
    whole = pa.concat_tables([dataset.days[day] for day in sorted(dataset.days)])
    placed = place(dataset, faults_of(example))
    broken = damage(dataset, placed)
    damaged = replace(dataset, days=split_by_day(broken, dataset.event_time))
    pairs = [("/".join(events_path(source)), dataset, damaged)]
    pairs += [
        ("/".join(features_path(view)), features_of(whole, view), features_of(broken, view))
        for view in plan.views.values()
    ]

    clean = {name: _profiles(one, dataset.all_days) for name, one, _ in pairs}
    bad = {name: _profiles(one, dataset.all_days) for name, _, one in pairs}

    def tables() -> list[Table]:
        return [Table(name, one, clean[name], bad[name]) for name, one, _ in pairs]

    folds = Folds(causes_between(plan))
    quiet = House(tables(), Watcher(folds)).walk()
    watcher = Watcher(folds)
    loud = House(tables(), watcher, placed).walk()
    return _result(example, dataset, quiet, loud, placed, watcher)


def _profiles(dataset: Dataset, days: Sequence[date]) -> dict[date, DayProfile]:
    found = {p.day: p for p in dataset.profiles()}
    return {day: found.get(day) or dataset.profile(day, None) for day in days}


def causes_between(plan: Plan) -> Causes:
    """Return the graph of causes as the code location has it."""
    events = {
        "/".join(features_path(view)): frozenset({"/".join(events_path(view.source))})
        for view in plan.views.values()
    }
    return Causes(events, reach_of_views(plan))


def _result(
    example: str,
    dataset: Dataset,
    quiet: Sequence[Transition],
    loud: Sequence[Transition],
    placed: Sequence[Placed],
    watcher: Watcher,
) -> Result:
    world = WORLD[example]
    told = [(one, _day(one)) for one in quiet]
    of_world = [one for one, day in told if day in world]
    empty = [one for one, day in told if day not in dataset.days]
    false = [one for one, day in told if day not in world and day in dataset.days]
    known = {_words(one) for one in quiet}
    new = [one for one in loud if _words(one) not in known]
    return Result(
        source=dataset.name,
        months=round(len(dataset.all_days) / DAYS_A_MONTH, 1),
        false_errors=_by_table(one for one in false if one.severity == "error"),
        false_warnings=_by_table(one for one in false if one.severity == "warn"),
        empty_days=len(empty),
        world=tuple(map(_words, of_world)),
        faults=tuple(
            Opened(one.fault.kind, one.days[0].isoformat(), tuple(_words(t) for t in mine))
            for one, mine in _parted(new, placed)
        ),
        conditions_failed=sum(c.incident is not None for c in watcher.conditions.values()),
    )


def _by_table(opened: Iterable[Transition]) -> dict[str, int]:
    return dict(Counter(one.subject.name for one in opened))


def _parted(
    opened: Sequence[Transition], placed: Sequence[Placed]
) -> Iterator[tuple[Placed, list[Transition]]]:
    """Give each incident to the newest fault that began before its day."""
    ends = [*(one.days[0] for one in placed[1:]), date.max]
    for one, end in zip(placed, ends, strict=True):
        first = date.min if one is placed[0] else one.days[0]
        yield one, [t for t in opened if first <= _day(t) < end]


def _day(one: Transition) -> date:
    partition = one.subject.partition
    return date.fromisoformat(partition) if partition != WHOLE else day_of(one.at_ms - DAY_MS)


def _words(one: Transition) -> str:
    subject = one.subject
    what = subject.aspect or subject.kind
    return f"{one.severity} {what} of {subject.name}, {subject.partition}"


def show(result: Result) -> None:
    """Print one source's result."""
    found = [one for one in result.faults if one.incidents]
    opened = sum(len(one.incidents) for one in found)
    print(f"\n{result.source}: {result.months} months")
    for one in result.faults:
        print(f"  {one.day} {one.fault:26} {len(one.incidents)}  {'; '.join(one.incidents)}")
    print(f"  {opened} incidents of {len(found)} faults that were found, of {len(result.faults)}")
    print(f"  {result.conditions_failed} checks and partitions failed in all of this")
    print(f"  false errors {dict(result.false_errors)}; the world's {list(result.world)}")
    rates = {t: round(n / result.months, 2) for t, n in result.false_warnings.items()}
    print(f"  false warnings a month {rates}; days without rows {result.empty_days}")


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", default=list(FILES), help="cards, retail, flights")
    parser.add_argument("--data", type=Path, required=True, help="where the Parquet files are")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write results/incidents.json, where sources that are not asked for stay",
    )
    arguments = parser.parse_args()
    results = []
    for example in arguments.examples:
        results.append(study(arguments.data, example))
        show(results[-1])
    if arguments.write:
        target = Path(__file__).parent / "results" / "incidents.json"
        before = json.loads(target.read_text("utf-8"))["sources"] if target.exists() else {}
        report = {
            "python": platform.python_version(),
            **{name: version(name) for name in ("millrace", "numpy", "pyarrow")},
            "sources": {**before, **{one.source: asdict(one) for one in results}},
        }
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
