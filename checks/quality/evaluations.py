"""Judgements as Dagster shows them: one check per type of rule, one evaluation per partition.

A check of a table covers all its columns: a view of fifty features has a dozen checks, not
hundreds, and its evaluations name the columns. After a range every day has its own evaluation,
and the check as a whole one more that names the bad days.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation

from checks.quality.evaluation_log import log_evaluations, newest_materializations
from checks.quality.judgement import JudgedDay, Judgement, findings_text, readers_text
from millrace.compile.checks import Rule
from millrace.quality.finding import Finding
from resources.dagster.partition_keys import closing_key
from resources.documentation import page_url
from resources.settings import settings_from_env

EXPECTATIONS = "expectations"
"""The check that Great Expectations answers; there is one on every judged table."""

_MOST_LISTED = 50
_MOST_DAYS_NAMED = 20
_MOST_PICTURES = 6
"""Bad days of one check that get a picture; the others are told in words."""
_PICTURED = frozenset({"drift", "null_rate", "volume"})
"""Checks that are pictured though they pass: what people watch. A picture takes 60 ms to draw."""

_MOST_TABLES_PICTURED = 25
"""Tables in a run up to which checks that pass are pictured; of more, drawing is most of the reporting."""

_ABOUT = {
    "rows": "The day has rows.",
    "null_keys": "Events of the view that have no key, and so belong to nobody.",
    "dead_letters": "Events that were refused.",
    "completeness": "Every hour that usually has events has some.",
    "null_rate": "Share of nulls, by column.",
    "range": "Values lie where they may.",
    "cardinality": "Number of different values, by column.",
    "unseen": "Values that the baseline never had, by column.",
    "uniqueness": "No row comes twice.",
    "frozen": "Values vary as they do otherwise.",
    "freshness": "The newest event of the day is young enough.",
    "drift": "The distribution of each column against its baseline.",
    "volume": "Rows against the same weekday of earlier weeks.",
}


_Found = list[tuple[JudgedDay, list[Finding]]]


def check_name(rule: Rule) -> str:
    """Return the name of the Dagster check that a rule belongs to."""
    return EXPECTATIONS if rule.type == "expectation" else rule.type


def check_specs(
    key: dg.AssetKey,
    rules: Sequence[Rule],
    partitions: dg.TimeWindowPartitionsDefinition,
    docs: str | None = None,
) -> list[dg.AssetCheckSpec]:
    """Return the checks of one asset, in the order of its rules, the expectations last.

    ``docs`` is where runbooks are served that are pages of these docs; None: nowhere.
    """
    by_name = {name: found for name, found in _by_check(rules) if name != EXPECTATIONS}
    declared = [rule for rule in rules if rule.type == "expectation"]
    specs = [_spec(key, name, found, partitions, docs) for name, found in by_name.items()]
    return [*specs, _spec(key, EXPECTATIONS, declared, partitions, docs)]


def _by_check(rules: Sequence[Rule]) -> list[tuple[str, list[Rule]]]:
    names = dict.fromkeys(check_name(rule) for rule in rules)
    return [(name, [rule for rule in rules if check_name(rule) == name]) for name in names]


def _spec(
    key: dg.AssetKey,
    name: str,
    rules: Sequence[Rule],
    partitions: dg.TimeWindowPartitionsDefinition,
    docs: str | None,
) -> dg.AssetCheckSpec:
    if name == EXPECTATIONS:
        text = "Great Expectations over the metrics of the day: the generated suite, and what is "
        text += "declared besides."
    else:
        text = _ABOUT.get(name, f"Rules of type {name}.")
    blocking = [rule for rule in rules if rule.is_blocking]
    if blocking:
        rules_hold = "rule holds" if len(blocking) == 1 else "rules hold"
        text += f" {len(blocking)} {rules_hold} a day back from readers."
    columns = [rule.feature for rule in rules if rule.feature is not None]
    metadata: dict[str, Any] = {"rules": len(rules), "blocking_rules": len(blocking)}
    if columns:
        metadata["columns"] = ", ".join(dict.fromkeys(columns))
    metadata.update(_responsible(rules, docs))
    # The partitions are those of the asset: without them the UI shows no status by partition.
    return dg.AssetCheckSpec(
        name, asset=key, description=text, metadata=metadata, partitions_def=partitions
    )


def _responsible(rules: Sequence[Rule], docs: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    owners = dict.fromkeys(rule.owner for rule in rules if rule.owner)
    runbooks = dict.fromkeys(rule.runbook for rule in rules if rule.runbook)
    if owners:
        found["owner"] = ", ".join(owners)
    if runbooks:
        found["runbook"] = dg.MetadataValue.md(
            "  \n".join(_linked(page_url(book, docs)) for book in runbooks)
        )
    return found


def _linked(runbook: str) -> str:
    # A path in pointed brackets would be no link, and shown with them.
    return f"<{runbook}>" if "://" in runbook else f"`{runbook}`"


def report_judgement(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    checks: Sequence[str],
    judgement: Judgement,
    *,
    by_hour: bool,
) -> None:
    """Store one evaluation per check and day and, after a range, one per check for all its days.

    Called after the days' materialisations are stored, since an evaluation points at the one it
    is about. Nothing is yielded: a result that a step yields costs three events of its own, and of
    a range it would say nothing of the days.

    Args:
        context: of the step that built the table.
        key: the asset.
        checks: names of the checks that the run asks for.
        judgement: what was found.
        by_hour: whether the asset's partitions are hours; a day is told at its last one.
    """
    every = (*judgement.days, *judgement.again)
    partitions = {judged.day: closing_key(judged.day, by_hour=by_hour) for judged in every}
    newest = newest_materializations(context.instance, key, list(partitions.values()))
    own = [partitions[judged.day] for judged in judgement.days]
    built = [newest[partition] for partition in own if partition in newest]
    latest = max(built, key=lambda target: target.storage_id, default=None)
    evaluations: list[AssetCheckEvaluation] = []
    tables = context.job_def.asset_layer.selected_asset_keys
    watched = _PICTURED if len(tables) <= _MOST_TABLES_PICTURED else frozenset()
    for name in checks:
        # First, so that the newest of a check is of the days that were built.
        again = [(judged, _of_check(name, judged.findings)) for judged in judgement.again]
        again = [(judged, findings) for judged, findings in again if findings]
        is_watched = name in watched
        evaluations += _of_days(
            key, name, judgement, again, partitions, newest, is_watched=is_watched
        )
        found = [(judged, _of_check(name, judged.findings)) for judged in judgement.days]
        # What nobody could judge is not said to be well: the check then counts as skipped.
        found = [(judged, findings) for judged, findings in found if findings]
        evaluations += _of_days(
            key, name, judgement, found, partitions, newest, is_watched=is_watched
        )
        if found and not context.has_partition_key:
            evaluations.append(
                _together(key, name, judgement, found, latest, is_watched=is_watched)
            )
    log_evaluations(context, evaluations)


def _of_days(
    key: dg.AssetKey,
    name: str,
    judgement: Judgement,
    found: _Found,
    partitions: Mapping[date, str],
    newest: Mapping[str, Any],
    *,
    is_watched: bool,
) -> Iterator[AssetCheckEvaluation]:
    pictures = _MOST_PICTURES
    for judged, findings in found:
        is_bad = any(f.is_alarm for f in findings)
        has_picture = pictures > 0 and (is_bad or (len(found) == 1 and is_watched))
        pictures -= has_picture
        yield AssetCheckEvaluation(
            asset_key=key,
            check_name=name,
            passed=not is_bad,
            severity=graded(findings),
            description=_day_text(judged, findings),
            metadata=_day_metadata(judgement, judged, findings, has_picture=has_picture),
            partition=partitions[judged.day],
            target_materialization_data=newest.get(partitions[judged.day]),
        )


def _of_check(name: str, findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if check_name(finding.rule) == name]


def graded(findings: Iterable[Finding]) -> dg.AssetCheckSeverity:
    """Return the worst of what failed; of a check that passed, the worst it could have been."""
    every = list(findings)
    counted = [f for f in every if f.is_alarm] or every
    worst = any(f.rule.severity == "error" for f in counted)
    return dg.AssetCheckSeverity.ERROR if worst else dg.AssetCheckSeverity.WARN


def _day_text(judged: JudgedDay, findings: Sequence[Finding]) -> str:
    again = " Judged again: days it is compared with were built anew." if judged.is_again else ""
    return _found_text(judged, findings) + again


def _found_text(judged: JudgedDay, findings: Sequence[Finding]) -> str:
    alarms = [f for f in findings if f.is_alarm]
    if alarms:
        forced = " Published all the same, as the run was told." if judged.was_forced else ""
        return findings_text(alarms) + "." + forced
    unknown = [f for f in findings if f.verdict == "unknown"]
    held = f"{len(findings) - len(unknown)} of {len(findings)} rules hold"
    return f"{held}; {findings_text(unknown)}" if unknown else held


def _day_metadata(
    judgement: Judgement, judged: JudgedDay, findings: Sequence[Finding], *, has_picture: bool
) -> dict[str, Any]:
    alarms = [f for f in findings if f.is_alarm]
    metadata: dict[str, Any] = {
        "failed": len(alarms),
        "unknown": sum(f.verdict == "unknown" for f in findings),
        "rows": judged.profile.rows,
        **_extremes(findings),
    }
    if alarms:
        metadata["readers"] = readers_text(judgement.table, judged)
        metadata["findings"] = _listed(alarms)
        docs = settings_from_env().docs_url
        metadata.update(_responsible([f.rule for f in alarms], docs))
    if has_picture:
        metadata.update(_pictures(judgement, judged, alarms or findings))
    return metadata


def _extremes(findings: Sequence[Finding]) -> dict[str, float]:
    """Return the value plotted over time: the only one, or the largest and the smallest."""
    values = [f.value for f in findings if f.value is not None]
    if not values:
        return {}
    if len(values) == 1:
        return {"value": float(values[0])}
    return {"largest": float(max(values)), "smallest": float(min(values))}


def _listed(findings: Sequence[Finding]) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.json([f.document() for f in findings[:_MOST_LISTED]])


def _pictures(
    judgement: Judgement, judged: JudgedDay, findings: Sequence[Finding]
) -> dict[str, Any]:
    from checks.quality.pictures import finding_pictures

    pictures = finding_pictures(judgement, judged, findings)
    return {name: dg.MetadataValue.md(markdown) for name, markdown in pictures.items()}


def _together(
    key: dg.AssetKey,
    name: str,
    judgement: Judgement,
    found: _Found,
    latest: Any,
    *,
    is_watched: bool,
) -> AssetCheckEvaluation:
    """The check over all days of the run."""
    every = [finding for _, findings in found for finding in findings]
    bad = [(judged, [f for f in findings if f.is_alarm]) for judged, findings in found]
    bad = [(judged, alarms) for judged, alarms in bad if alarms]
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=name,
        passed=not bad,
        severity=graded(every),
        description=_together_text(found, bad),
        metadata=_together_metadata(judgement, found, bad, has_picture=bool(bad) or is_watched),
        target_materialization_data=latest,
    )


def _together_text(found: _Found, bad: _Found) -> str:
    if not bad:
        return f"{len(found)} days hold."
    named = [f"{judged.day}: {findings_text(alarms)}" for judged, alarms in bad[:_MOST_DAYS_NAMED]]
    more = len(bad) - _MOST_DAYS_NAMED
    named += [f"and {more} more days"] if more > 0 else []
    return f"{len(bad)} of {len(found)} days are bad.\n" + "\n".join(named)


def _together_metadata(
    judgement: Judgement, found: _Found, bad: _Found, *, has_picture: bool
) -> dict[str, Any]:
    every = [f for _, findings in found for f in findings]
    metadata: dict[str, Any] = {
        "days": len(found),
        "bad_days": len(bad),
        "unknown": sum(f.verdict == "unknown" for f in every),
        "judge_seconds": round(judgement.seconds, 3),
        **_extremes(every),
        "by_rule": dg.MetadataValue.md(_by_rule(found, bad)),
    }
    if has_picture:
        judged, findings = bad[-1] if bad else found[-1]
        metadata.update(_pictures(judgement, judged, findings))
    return metadata


def _by_rule(found: _Found, bad: _Found) -> str:
    """A table of the rules: how many days failed, and the last value, of a bad day if there is one."""
    failed: dict[str, int] = {}
    newest: dict[str, Finding] = {}
    for _, findings in found:
        for finding in findings:
            failed[finding.rule.name] = failed.get(finding.rule.name, 0) + finding.is_alarm
            newest[finding.rule.name] = finding
    for _, alarms in bad:
        newest.update({finding.rule.name: finding for finding in alarms})
    worst = sorted(newest.values(), key=lambda f: -failed[f.rule.name])[:_MOST_LISTED]
    lines = ["| column | severity | bad days | last value | expected |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(f.column or '')} | {f.rule.severity} | {failed[f.rule.name]} "
        f"| {_cell(f.actual)} | {_cell(f.expected)} |"
        for f in worst
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def report_unable(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    checks: Sequence[str],
    partitions: Sequence[str],
    reason: str,
) -> None:
    """Fail checks that could not run, on each partition: what nobody looked at never passes."""
    newest = newest_materializations(context.instance, key, partitions)
    of: list[str | None] = [*partitions, *([] if context.has_partition_key else [None])]
    log_evaluations(
        context,
        [
            AssetCheckEvaluation(
                asset_key=key,
                check_name=name,
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"The check could not run: {reason}",
                partition=partition,
                target_materialization_data=newest.get(partition or ""),
            )
            for name in checks
            for partition in of
        ],
    )


def chosen_checks(context: dg.AssetExecutionContext, key: dg.AssetKey) -> list[str]:
    """Return the names of an asset's checks that the run asks for."""
    wanted = context.selected_asset_check_keys
    return sorted(check.name for check in wanted if check.asset_key == key)
