"""What a run that is executed again from failure need not build: what the run before it built.

A day stands if both say so: Dagster, which has a materialisation of it since the first of these runs
began, and the lake, which knows by what and from what it was built. A run that is executed again as a
whole, or at chosen steps, builds everything.
"""

from collections.abc import Callable
from datetime import date

import dagster as dg

from checks.quality.evaluation_log import newest_materializations, withdraw_planned_partitions
from millrace.days import Days
from resources.dagster.partition_keys import keys_of_day

_FROM_FAILURE = ("dagster/is_resume_retry", "dagster/is_asset_resume_retry")
"""Dagster's marks of a run that is to do what its parent left undone."""

_PARENT = "dagster/parent_run_id"

LakeSays = Callable[[Days, int], frozenset[date]]
"""Which of some days stand in the lake as built since an instant, epoch milliseconds."""


def standing_days(
    context: dg.AssetExecutionContext, spec: dg.AssetSpec, asked: Days, lake_says: LakeSays
) -> frozenset[date]:
    """Return the days of an asset that its run may leave as they are.

    Dagster is told that this run does not mean to build them, lest it shows them as failed if
    others fail again. Where it cannot be told, every day is built.
    """
    since_s = _first_attempt_s(context)
    if since_s is None:
        return frozenset()
    by_hour = isinstance(spec.partitions_def, dg.HourlyPartitionsDefinition)
    keys = {day: keys_of_day(day, asked.hours(day), by_hour=by_hour) for day in asked}
    known = newest_materializations(
        context.instance, spec.key, [key for some in keys.values() for key in some]
    )
    of_attempts = {key for key, newest in known.items() if newest.timestamp >= since_s}
    told = [day for day, some in keys.items() if of_attempts.issuperset(some)]
    if not told:
        return frozenset()
    stands = lake_says(asked.within(told), int(since_s * 1000)).intersection(told)
    partitions = [key for day in sorted(stands) for key in keys[day]]
    if not withdraw_planned_partitions(context, spec.key, partitions):
        return frozenset()
    context.log.info(
        "%s: %d of %d day(s) stand as run %s built them and are left, %d are built",
        spec.key.to_user_string(),
        len(stands),
        len(asked),
        context.run.tags[_PARENT],
        len(asked) - len(stands),
    )
    return stands


def _first_attempt_s(context: dg.AssetExecutionContext) -> float | None:
    """Return when the run began that this one, and perhaps others before it, is to complete."""
    run, seen = context.run, set[str]()
    while any(run.tags.get(mark) == "true" for mark in _FROM_FAILURE):
        parent = context.instance.get_run_by_id(run.tags.get(_PARENT, ""))
        if parent is None or parent.run_id in seen:
            return None
        seen.add(parent.run_id)
        run = parent
    if not seen:
        return None
    record = context.instance.get_run_record_by_id(run.run_id)
    return record.start_time if record is not None else None
