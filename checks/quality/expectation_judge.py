"""Great Expectations in a process of its own: ``python -m checks.quality.expectation_judge``.

Importing it takes seconds of a core, so it is started while Spark still builds and asked when the
metrics are there. One line of JSON on standard input is one question, one line on standard output
its answer:

    {"metrics": {column: [values]}, "suite": {…}, "rows": null}
    {"metrics": null, "suite": {…}, "rows": {"table": URI, "day": "2018-04-01", "columns": […]}}
    -> {"outcomes": {id: {"error": null, "failed": {day: "what was found"}}}}

An outcome belongs to the expectation whose ``meta.id`` it bears. ``failed`` names the days that do
not meet it, with ``error`` it could not be judged.
"""

import json
import os
import sys
from collections.abc import Container, Mapping
from datetime import date
from typing import Any

_INDEX = ["day"]
_NOT_NEEDED = ("pyspark", "sqlalchemy", "psycopg2", "google.cloud", "snowflake", "boto3")
"""Optional to Great Expectations and imported where found: a third of the time it takes to start,
and only pandas is used here.
"""
_FOUND_LENGTH = 300


def main() -> None:
    """Answer questions until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a library prints must not be taken for an answer.
    os.dup2(2, 1)
    judge = _Judge()
    for line in sys.stdin:
        answers.write(json.dumps({"outcomes": judge.answer(json.loads(line))}) + "\n")
        answers.flush()


class _Judge:
    """One ephemeral context of Great Expectations, which writes no file and asks no server."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        absent: dict[str, Any] = dict.fromkeys(_NOT_NEEDED)
        sys.modules.update(absent)
        import great_expectations as gx

        self._gx = gx
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("lake").add_dataframe_asset("day")
        self._batches = asset.add_batch_definition_whole_dataframe("whole")

    def answer(self, question: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Judge every expectation of a suite over the metrics of days, or the rows of one."""
        import pyarrow as pa

        rows = question["rows"]
        if rows is not None:
            return self._judged(question["suite"], _read_rows(rows), rows["day"])
        days = {"day": pa.array(question["metrics"].pop("day"), pa.string())}
        numbers = {k: pa.array(v, pa.float64()) for k, v in question["metrics"].items()}
        frame = pa.table({**days, **numbers}).to_pandas()
        suite = question["suite"]
        outcomes = self._met_by_all(suite, frame)
        others = [id_ for id_ in map(_id, suite["expectations"]) if id_ not in outcomes]
        outcomes.update(self._judged(_chosen(suite, others), frame, None))
        whole = [id_ for id_, outcome in outcomes.items() if outcome["failed"] is None]
        if whole:
            outcomes.update(self._day_by_day(_chosen(suite, whole), frame))
        return outcomes

    def _met_by_all(self, suite: Mapping[str, Any], frame: Any) -> dict[str, dict[str, Any]]:
        """Judge what is asked of each day by itself; return what all days meet.

        That is nearly everything on nearly every day, and to ask whether costs half of what it
        costs to ask which.
        """
        of_rows = [_id(e) for e in suite["expectations"] if self._is_of_rows(e)]
        results = self._results(_chosen(suite, of_rows), frame, {"result_format": "BOOLEAN_ONLY"})
        return {
            id_: {"error": None, "failed": {}} for id_, told in results.items() if told["success"]
        }

    def _is_of_rows(self, document: Mapping[str, Any]) -> bool:
        """Tell whether an expectation is met by a frame if, and only if, each row meets it."""
        from great_expectations.expectations import expectation
        from great_expectations.expectations.registry import get_expectation_impl

        try:
            implementation = get_expectation_impl(document["type"])
        except self._gx.exceptions.ExpectationNotFoundError:
            return False
        kinds = (expectation.ColumnMapExpectation, expectation.ColumnPairMapExpectation)
        return issubclass(implementation, kinds) and "mostly" not in document["kwargs"]

    def _day_by_day(self, suite: Mapping[str, Any], frame: Any) -> dict[str, dict[str, Any]]:
        """Judge again, day by day, what speaks of a column as a whole and so names no day."""
        found: dict[str, dict[str, Any]] = {
            _id(e): {"error": None, "failed": {}} for e in suite["expectations"]
        }
        for day in frame["day"]:
            judged = self._judged(suite, frame[frame["day"] == day], day)
            for id_, outcome in judged.items():
                found[id_]["error"] = found[id_]["error"] or outcome["error"]
                found[id_]["failed"].update(outcome["failed"] or {})
        return found

    def _judged(
        self, suite: Mapping[str, Any], frame: Any, day: str | None
    ) -> dict[str, dict[str, Any]]:
        wanted: dict[str, Any] = {"result_format": "COMPLETE"}
        if day is None:
            wanted["unexpected_index_column_names"] = _INDEX
            wanted.update(return_unexpected_index_query=False, partial_unexpected_count=0)
        results = self._results(suite, frame, wanted)
        return {id_: _outcome(told, day) for id_, told in results.items()}

    def _results(
        self, suite: Mapping[str, Any], frame: Any, wanted: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Return what Great Expectations tells of each expectation; of a wrong one, what is wrong."""
        expectations = self._gx.ExpectationSuite(name=suite["name"])
        results: dict[str, dict[str, Any]] = {}
        for document in suite["expectations"]:
            error = self._added(expectations, document)
            if error is not None:
                info = {"raised_exception": True, "exception_message": error}
                results[_id(document)] = {"success": False, "exception_info": info}
        if not expectations.expectations:
            return results
        batch = self._batches.get_batch(batch_parameters={"dataframe": frame})
        for result in batch.validate(expectations, result_format=dict(wanted)).results:
            told = result.to_json_dict()
            results[_id(told["expectation_config"])] = told
        return results

    def _added(self, suite: Any, document: Mapping[str, Any]) -> str | None:
        """Add an expectation to a suite; return what is wrong with it, if anything is."""
        from great_expectations.exceptions import GreatExpectationsError
        from great_expectations.expectations.expectation_configuration import (
            ExpectationConfiguration,
        )

        try:
            suite.add_expectation_configuration(ExpectationConfiguration(**document))
        # Of wrong arguments pydantic complains, in any of its two versions: a ValueError.
        except (GreatExpectationsError, ValueError, TypeError) as error:
            return " ".join(str(error).split())[:_FOUND_LENGTH]
        return None


def _id(document: Mapping[str, Any]) -> str:
    identity: str = document["meta"]["id"]
    return identity


def _chosen(suite: Mapping[str, Any], ids: Container[str]) -> dict[str, Any]:
    return {**suite, "expectations": [e for e in suite["expectations"] if _id(e) in ids]}


def _outcome(told: Mapping[str, Any], day: str | None) -> dict[str, Any]:
    """Read one result; ``failed`` is None if it speaks of all days together."""
    error = _exception(told["exception_info"])
    if error is not None:
        return {"error": error, "failed": {}}
    result = told["result"]
    if day is not None:
        return {"error": None, "failed": {} if told["success"] else {day: _found(result)}}
    listed = result.get("unexpected_index_list")
    if listed is None:
        return {"error": None, "failed": None}
    failed = {
        row["day"]: ", ".join(f"{k} {_number(v)}" for k, v in row.items() if k != "day")
        for row in listed
    }
    return {"error": None, "failed": failed}


def _found(result: Mapping[str, Any]) -> str:
    """Say what was found instead, in a line."""
    if result.get("unexpected_count") is not None:
        some = ", ".join(str(v) for v in (result.get("partial_unexpected_list") or [])[:5])
        counted = f"{result['unexpected_count']} of {result.get('element_count')} rows do not"
        return f"{counted} ({some})"[:_FOUND_LENGTH] if some else counted
    return f"observed {_number(result.get('observed_value'))}"[:_FOUND_LENGTH]


def _number(value: Any) -> str:
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError):
        return str(value)


def _exception(info: Mapping[str, Any]) -> str | None:
    """Return the message of what was raised; Great Expectations nests it by metric, or does not."""
    nested = [info] if "raised_exception" in info else list(info.values())
    for one in nested:
        if one.get("raised_exception"):
            return " ".join(str(one.get("exception_message")).split())[:_FOUND_LENGTH]
    return None


def _read_rows(rows: Mapping[str, Any]) -> Any:
    """Read one day of a table into pandas; only the columns that the suite names."""
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

    from resources.lake.delta import open_dataset
    from resources.lake.options import storage_options
    from resources.settings import settings_from_env

    # What lets one into the store is read here, so that no question holds it.
    options = storage_options(settings_from_env())
    table = open_dataset(DeltaTable(rows["table"], storage_options=options))
    within = ds.field("event_date") == date.fromisoformat(rows["day"])
    return table.to_table(columns=rows["columns"] or None, filter=within).to_pandas()


if __name__ == "__main__":
    main()
