"""Ask Great Expectations, in its own process, about judged days; its answers are findings too."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from checks.quality import suites
from checks.quality.judgement import JudgedDay
from millrace.compile.checks import RUNBOOKS, Rule
from millrace.errors import EngineError
from millrace.quality.finding import Finding
from resources.lake.delta import rs_path
from resources.settings import Settings

_TIMEOUT_S = 180.0
_ROOT = Path(__file__).resolve().parents[2]

GENERATED = Rule("generated", "expectation", None, {}, "warn", runbook=f"{RUNBOOKS}#expectation")
"""Stands for the generated suite as a whole among the findings of a day."""


class ExpectationJudge:
    """The process that imports Great Expectations; started early, asked once per table."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take a running ``checks.quality.expectation_judge``."""
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put("")

    def ask(self, question: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the outcome of each expectation by its id.

        Raises:
            EngineError: the process ended or did not answer in time.
        """
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            line = self._lines.get(timeout=_TIMEOUT_S)
        except (OSError, queue.Empty) as error:
            raise _silent("gives no answer") from error
        if not line:
            raise _silent("ended before it answered")
        outcomes: dict[str, dict[str, Any]] = json.loads(line)["outcomes"]
        return outcomes


def _silent(what: str) -> EngineError:
    return EngineError(
        f"the process of Great Expectations {what}",
        where="checks.quality.expectation_judge",
        fix="the run's stderr has its trace; the other checks were judged without it",
    )


@contextmanager
def expectation_judge() -> Iterator[ExpectationJudge]:
    """Start the process, which gets ready in its own time, and end it with the block."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "checks.quality.expectation_judge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "GX_ANALYTICS_ENABLED": "false"},
    )
    try:
        yield ExpectationJudge(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def expected(
    judge: ExpectationJudge,
    settings: Settings,
    table: str,
    rules: Sequence[Rule],
    days: Sequence[JudgedDay],
) -> list[JudgedDay]:
    """Return the days with the findings of Great Expectations behind their own.

    One finding tells how the generated suite went: it passes if every verdict is the one that the
    rule itself came to. Then comes one for each declared expectation. If Great Expectations cannot
    be asked, all of these fail, and the other findings stand.
    """
    if not days:
        return []
    try:
        frame = suites.frame(days, rules)
        suite = suites.applicable(suites.suite(table, rules), frame)
        outcomes = judge.ask({"metrics": frame, "suite": suite, "rows": None})
        by_day = {judged.day: _asked_rows(judge, settings, table, rules, judged) for judged in days}
    except EngineError as error:
        return [_with(judged, _unasked(judged, rules, str(error))) for judged in days]
    return [
        _with(
            judged,
            [
                _generated(judged, rules, outcomes),
                *(_declared(judged, r, outcomes) for r in rules if suites.judges_metrics(r)),
                *(_declared(judged, r, by_day[judged.day]) for r in rules if suites.judges_rows(r)),
            ],
        )
        for judged in days
    ]


def _with(judged: JudgedDay, findings: Sequence[Finding]) -> JudgedDay:
    return replace(judged, findings=(*judged.findings, *findings))


def _asked_rows(
    judge: ExpectationJudge,
    settings: Settings,
    table: str,
    rules: Sequence[Rule],
    judged: JudgedDay,
) -> dict[str, dict[str, Any]]:
    on_rows = [rule for rule in rules if suites.judges_rows(rule)]
    if not on_rows or not judged.profile.rows:
        return {}
    rows = {
        "table": rs_path(settings, table),
        "day": judged.day.isoformat(),
        "columns": suites.row_columns(on_rows),
    }
    return judge.ask({"metrics": None, "suite": suites.row_suite(table, rules), "rows": rows})


def _generated(
    judged: JudgedDay, rules: Sequence[Rule], outcomes: Mapping[str, Mapping[str, Any]]
) -> Finding:
    """Hold the verdicts of the generated suite against those of the rules."""
    own = {f.rule.name: f for f in judged.findings if f.value is not None}
    day = judged.day.isoformat()
    differing, failed = [], 0
    for name in suites.measure_names(rules):
        sides = [outcomes.get(f"{name}:{side}", {}) for side in ("high", "low")]
        broken = any(day in side.get("failed", {}) for side in sides)
        failed += broken
        if name in own and broken != own[name].is_alarm:
            differing.append(name)
    told = f"{len(own) - failed} of {len(own)} rules hold"
    return _finding(
        GENERATED,
        passed=not differing,
        n=len(own),
        expected="the generated suite comes to the verdicts of the rules",
        actual=f"other verdicts on {', '.join(differing)}" if differing else told,
    )


def _declared(judged: JudgedDay, rule: Rule, outcomes: Mapping[str, Mapping[str, Any]]) -> Finding:
    document = suites.declared(rule)
    words = ", ".join(f"{key} {value}" for key, value in document["kwargs"].items())
    outcome = outcomes.get(rule.name)
    expectation = f"{document['type']}({words})"
    if outcome is None:
        # Only the rows of an empty day are not asked about, and nothing never passes.
        found: str | None = "the day has no rows"
    elif outcome["error"] is not None:
        found = f"it could not be judged: {outcome['error']}"
    else:
        found = outcome["failed"].get(judged.day.isoformat())
    return _finding(
        rule,
        passed=found is None,
        n=judged.profile.rows,
        expected=expectation,
        actual="met" if found is None else found,
    )


def _unasked(judged: JudgedDay, rules: Sequence[Rule], reason: str) -> list[Finding]:
    declared = [rule for rule in rules if rule.type == "expectation"]
    return [
        _finding(rule, passed=False, n=judged.profile.rows, expected="an answer", actual=reason)
        for rule in (GENERATED, *declared)
    ]


def _finding(rule: Rule, *, passed: bool, n: int, expected: str, actual: str) -> Finding:
    return Finding(
        rule=rule,
        verdict="passed" if passed else "failed",
        value=None,
        low=None,
        high=None,
        n=n,
        expected=expected,
        actual=actual,
        reason="" if passed else f"{actual}; {expected}",
    )
