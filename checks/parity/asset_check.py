"""Parity as an asset check: the online table of a view equals what its events say."""

from typing import TYPE_CHECKING

import dagster as dg

from lineage.builds import enclosing
from millrace.durations import format_duration
from millrace.errors import PlatformError
from millrace.plan import Plan, ViewPlan
from resources.dagster.asset_keys import online_path
from resources.settings import Settings, settings_from_env

if TYPE_CHECKING:
    from checks.parity.report import ParityReport

SAMPLES = 100
"""Entities that one run of the check asks about."""

_SHOWN = 20


def parity_checks(plan: Plan) -> list[dg.AssetChecksDefinition]:
    """Return for each view that may be served the check ``parity`` on ``online/<view>_online``.

    It passes if values were compared and every one is right; the rule for events still under way
    is docs/parity.md. What cannot be audited (nothing served, no archive) fails the check, with
    the reason as its description.
    """
    return [parity_check(plan, view) for view in plan.views.values() if view.is_online]


def parity_check(plan: Plan, view: ViewPlan) -> dg.AssetChecksDefinition:
    """Return the check of one view."""
    name = view.name

    @dg.asset_check(
        asset=dg.AssetKey(online_path(view)),
        name="parity",
        description="Served values equal their recomputation from the archived and batch events "
        "at the same instants; zero differences pass.",
    )
    def parity(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        from checks.parity.audit import check_parity

        settings = settings_from_env()
        try:
            report = check_parity(settings, plan, name, context.log.info, samples=SAMPLES)
        except PlatformError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        found = report.as_json()
        in_flight = report.in_flight
        _tell(context, settings, report)
        return dg.AssetCheckResult(
            passed=report.is_equal,
            description=f"{report.differing} of {report.values} values differ; answers lag by at "
            f"most {in_flight.lag_ms} ms, {format_duration(in_flight.allowed_ms)} is allowed"
            + (f". {report.hint}" if report.hint else ""),
            metadata={
                "values": report.values,
                "differing": report.differing,
                "version": report.version,
                "lag_ms": in_flight.lag_ms,
                "in_flight_events": in_flight.events,
                "samples": dg.MetadataValue.json(found["samples"]),
                "entities": dg.MetadataValue.json(found["entities"]),
                "days": dg.MetadataValue.json(found["days"]),
                "not_looked_at": dg.MetadataValue.json(found["not_looked_at"]),
                "differences": dg.MetadataValue.json(found["differences"][:_SHOWN]),
            },
        )

    return parity


def _tell(
    context: dg.AssetCheckExecutionContext, settings: Settings, report: "ParityReport"
) -> None:
    from lineage.assertions import Assertion, emit_online_assertions

    verdict = Assertion(
        "parity",
        passed=report.is_equal,
        severity="error",
        expected="0 values differ",
        actual=f"{report.differing} of {report.values} values differ",
    )
    emit_online_assertions(
        settings, report.view.name, report.version, [verdict], part_of=enclosing(context)
    )
