"""A view changed, its history built from the button, promoted: the asset says what lookups answer.

Real webserver, daemon, code server, online server, store and lake; runs write tiles without Spark. All
the while the newest event of the asset, by GraphQL as the UI reads it, and the version that a lookup
answers with are read side by side.
"""

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from millrace.plan import Plan
from resources.dagster.client import HISTORY_JOB, DagsterApi
from resources.declarations import load_valid_plan
from resources.settings import Settings, settings_from_env
from streaming.upload.upload import upload
from tests.support.dagster_stack import finished, running_dagster, wait_for
from tests.support.serving_harness import running_server
from tests.support.stack_fakes import pretend_running
from tests.support.store_server import StoreServer
from tests.support.tile_lakes import DECLARATIONS, START, build, random_tiles

pytestmark = pytest.mark.services

VIEW = "upload_lifetimes"
ONLINE = ("online", f"{VIEW}_online")
CLOSED = re.sub(
    r"  - name: upload_windows.*(?=  - name: upload_lifetimes)", "", DECLARATIONS, flags=re.S
)
CLOSED = CLOSED.replace(
    "stream: {topic: uploads, format: json}",
    "batch: {format: csv, path: uploads.csv}\n    end: 2024-01-21",
)
CHANGED = CLOSED.replace("name: count_6h", "name: n_6h")
BODY = {"entity_name": "shopper", "keys": ["shopper 0"], "features": [f"{VIEW}:amount_sum"]}
DAYS = [START.replace(day=n) for n in range(1, 21)]
MOST_APART_S = 5.0

NEWEST = """
query Newest($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset {
    assetMaterializations(limit: 1) { timestamp metadataEntries { ...entry } }
    assetObservations(limit: 1) { timestamp metadataEntries { ...entry } }
  } }
}
fragment entry on MetadataEntry {
  __typename label
  ... on TextMetadataEntry { text }
  ... on UrlMetadataEntry { url }
  ... on IntMetadataEntry { intValue }
  ... on BoolMetadataEntry { boolValue }
  ... on JobMetadataEntry { jobName }
}
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) { ... on Runs { results { runId status tags { key value } } } }
}
"""


@dataclass
class Stack:
    """The parts, and what was read of them so far.

    Attributes:
        seen: instant, version by the asset, version by a lookup, at each look.
        sums: what a lifetime's sum was answered as.
    """

    api: DagsterApi
    settings: Settings
    port: int
    seen: list[tuple[float, str | None, str | None]] = field(default_factory=list)
    sums: set[str] = field(default_factory=set)

    def declare(self, text: str) -> Plan:
        """Declare the views, and let Dagster load them."""
        (self.settings.views[0] / "uploads.yaml").write_text(text, encoding="utf-8")
        plan, faults = load_valid_plan(self.settings)
        assert not faults
        assert self.api.reload() is None
        return plan

    def told(self) -> dict[str, Any]:
        """Return the metadata of the newest event of what is served."""
        found = self.api.query(NEWEST, {"key": {"path": list(ONLINE)}})["assetOrError"]
        events = found.get("assetMaterializations", []) + found.get("assetObservations", [])
        if not events:
            return {}
        newest = max(events, key=lambda event: float(event["timestamp"]))
        return {entry["label"]: _value(entry) for entry in newest["metadataEntries"]}

    def answered(self) -> str | None:
        """Return the version that a lookup is answered from; None if there is none."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/features:lookup",
            data=json.dumps(BODY).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                (result,) = json.load(response)["results"]
        except urllib.error.HTTPError:
            return None
        (found,) = result["features"].values()
        self.sums.add(str(found["value"]))
        return str(found["version"])

    def until(self, what: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read both sides until what is told is so; returns that."""

        def look() -> dict[str, Any] | None:
            told, answered = self.told(), self.answered()
            one = (time.monotonic(), told.get("version"), answered)
            if not self.seen or self.seen[-1][1:] != one[1:]:
                print(f"{one[0]:.1f} s: asset {one[1]}, lookup {one[2]} {told}")  # noqa: T201
            self.seen.append(one)
            return told if is_so(told) else None

        return wait_for(what, look)

    def apart_s(self) -> float:
        """Return for how long the two differed at most, from the first look to the first equal one."""
        longest, since = 0.0, None
        for at, told, answered in self.seen:
            if told == answered:
                longest, since = max(longest, 0.0 if since is None else at - since), None
            elif since is None:
                since = at
        assert since is None, self.seen[-1]
        return longest

    def press(self, url: str) -> str:
        """Launch what the launchpad behind a link is filled with; returns the run."""
        parts = urlsplit(url)
        assert parts.path.endswith(f"/jobs/{HISTORY_JOB}/playground/setup")
        selector = {
            "repositoryLocationName": "millrace",
            "repositoryName": "__repository__",
            "pipelineName": HISTORY_JOB,
        }
        config = yaml.safe_load(parse_qs(parts.query)["config"][0])
        params = {"selector": selector, "mode": "default", "runConfigData": config}
        answer = self.api.query(LAUNCH, {"params": params})["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def history_runs(self, fingerprint: str) -> list[dict[str, str]]:
        """Return the tags of the runs that the button has started, oldest first."""
        tag = {"key": f"millrace.history/{VIEW}", "value": fingerprint}
        found = self.api.query(RUNS, {"filter": {"tags": [tag]}})["runsOrError"]["results"]
        return [
            {"run": run["runId"], **{t["key"]: t["value"] for t in run["tags"]}}
            for run in reversed(found)
        ]


def _value(entry: dict[str, Any]) -> Any:
    names = ("text", "url", "intValue", "boolValue", "jobName")
    return next((entry[name] for name in names if name in entry), None)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("promotion")
    store = StoreServer(root / "store")
    store.start().close()
    env = {
        "MILLRACE_HOME": str(root / "millrace"),
        "MILLRACE_VIEWS": str(root / "views"),
        "MILLRACE_STORE_URL": store.url,
    }
    (root / "views").mkdir()
    (root / "views" / "uploads.yaml").write_text(CLOSED, encoding="utf-8")
    settings = replace(settings_from_env(env), views=(root / "views",))
    module = "integration.dagster_project.tiles_of_a_lake"
    try:
        serve_first_version(settings)
        with running_dagster(root, module, env) as api, running_server(store.url) as (_, port):
            pretend_running(settings.home, dagster=api.url)
            yield Stack(api, settings, port)
    finally:
        store.stop()


def serve_first_version(settings: Settings) -> None:
    plan, faults = load_valid_plan(settings)
    assert not faults
    old = plan.view(VIEW)
    build(settings, old, random_tiles(old, 12, 20), DAYS)
    upload(settings, plan, VIEW, print)


def test_what_the_asset_says_is_what_lookups_answer_through_a_whole_change(stack: Stack) -> None:
    stack.until("first report", lambda told: told.get("version") == "v1")
    stack.seen.clear()  # that v1 is served at all was done by hand, and is told by a look
    new = stack.declare(CHANGED).view(VIEW)
    build(stack.settings, new, random_tiles(new, 12, 20), [*DAYS[:3], DAYS[-1]])
    waits = stack.until("what v2 waits for", lambda told: told.get("missing_days") == 16)
    assert (waits["version"], waits["waits"]) == ("v1", "v2")
    assert (waits["missing_from"], waits["missing_to"]) == ("2024-01-04", "2024-01-19")
    assert waits["missing_tables"] == f"events/uploads, tiles/{VIEW}/v2"
    command = f"millrace backfill {VIEW} --start 2024-01-04 --end 2024-01-20"
    assert waits["build_command"] == command
    assert waits["build_job"] == HISTORY_JOB

    assert finished(stack.api, stack.press(waits["build"])).status == "SUCCESS"
    [run] = stack.history_runs(new.fingerprint)
    assert run["dagster/asset_partition_range_start"] == "2024-01-04"
    assert run["dagster/asset_partition_range_end"] == "2024-01-19"
    promoted = stack.until("promotion", lambda told: "from_version" in told)
    assert (promoted["from_version"], promoted["to_version"]) == ("v1", "v2")
    assert promoted["why"] == "the tiles of v2 are uploaded: 20 day(s)"
    assert promoted["missing_days_in_reach"] == 0
    stack.until("the server to follow", lambda _: stack.answered() == "v2")
    apart_s = stack.apart_s()
    print(f"{len(stack.seen)} looks, apart for at most {apart_s:.2f} s")  # noqa: T201
    assert apart_s < MOST_APART_S
    assert len(stack.sums) == 1  # v2 never answered from less than v1 did
