"""The archive's judge and the Flink jobs' function, on the same bytes: one verdict, one value.

Bytes are good events, broken ones, and both of them with bytes changed at random, so the verdict
is not known beforehand: the two must only agree.
"""

import base64
import json
import struct
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from millrace.compile.flink import FUNCTIONS, STATEMENT_END
from millrace.compile.flink_ddl import printed
from millrace.compile.flink_events import _parsed
from millrace.plan import Column, SourcePlan
from millrace.types import parse_type
from resources.endpoints import flink_url
from resources.flink.rest import FlinkCluster
from resources.settings import Settings
from streaming.archive.classification import Classifier
from streaming.runner.build import ensure_runner_jar
from tests.support.archive_cases import payments
from tests.support.event_bytes import MALFORMED, any_event, good_event

pytestmark = pytest.mark.services

COLUMNS = {
    "at": "timestamp",
    "id": "string",
    "who": "int64",
    "n": "int32",
    "x": "float64",
    "amount": "decimal(12,2)",
    "wide": "decimal(38,3)",
    "whole": "decimal(38,0)",
    "part": "decimal(2,2)",
    "ok": "bool",
    "day": "date",
    "raw": "bytes",
    "other": "timestamp",
    "taste": "vector(3)",
}
RENAMED = {
    "deep": "a.b",
    "deeper": "a.c.d",
    "outer": "a",
    "other_name": "Other Name's",
    "inner": "v.w",
    "again": "v.w",
}
"""Columns that records call otherwise, beside those above."""
RENAMED_TYPES = {
    "deep": "int64",
    "deeper": "string",
    "outer": "string",
    "other_name": "bool",
    "inner": "vector(2)",
    "again": "vector(2)",
}
REACHED = [
    b'"a":{"b":7}',
    b'"a":{"b":"x"}',
    b'"a":{"b":null,"c":{"d":"z"}}',
    b'"a":{"c":{"d":1}}',
    b'"a":{"b":1,"b":2}',
    b'"a":{"b":1},"a":{}',
    b'"a":{"b":1},"a":"x"',
    b'"a":"x","a.b":7',
    b'"a.b":null,"a":{"b":8}',
    b'"a.b":"x"',
    b'"a":[{"b":1}]',
    b'"v":{"w":[1,2]}',
    b'"v":{"w":[1,[2],{"b":3}]}',
    b'"v":{"w":[1,2]},"v":{"u":1}',
    b'"v.w":[1.5,2],"v":{"w":[3]}',
    b'"v":[1,2]',
    b'"a":{"c":5,"c.d":"y"}',
    b'"Other Name\'s":true',
    b'"Other Name\'s":"true"',
    b'"other_name":1,"deep":"x"',
    b'"who":92233720326854775807,"who":1,"x":2.5',
]
FAR = [
    b"253402300799999",
    b"253402300800000",
    b"-62135596800000",
    b"-62135596800001",
    b"%d" % 2**62,
]
FOREVER_MS = 2**62
EVENTS = 8_000
DEADLINE_S = 180
JSON_BYTES = b'{}[]",:\\0123456789.eE+-truefalsn/uUdD8cC\x00\x1f \t\r\n\x7f\x80\xc3\xed\xf4\xff'


def some_bytes(columns: dict[str, str], rng: Random) -> list[bytes | None]:
    """Return values of every kind; each way of breaking an event occurs."""
    found: list[bytes | None] = [b'{"at":' + far + b"}" for far in FAR]
    found += [b'{"at":0,' + reached + b"}" for reached in REACHED]
    for kind in MALFORMED.values():
        good = good_event(columns, "at", 10**12, rng).value or b""
        found.append(kind(good.strip(), rng))
    while len(found) < EVENTS:
        value = any_event(columns, "at", rng.randint(0, 10**12), rng, bad=0.4).value
        if value and rng.random() < 0.2:
            value = value.replace(b"{", b"{" + rng.choice(REACHED) + b",", 1)
        if value and rng.random() < 0.6:
            value = _changed(value, rng)
        found.append(value)
    return found


def _changed(value: bytes, rng: Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(value) + 1)
        piece = bytes(rng.choice(JSON_BYTES) for _ in range(rng.randint(0, 2)))
        value = value[:place] + piece + value[place + rng.randint(0, 2) :]
    return value


def by_flink(
    settings: Settings, source: SourcePlan, values: list[bytes | None], folder: Path
) -> list[dict[str, Any]]:
    """Return what ``parse_json_row`` makes of each value, in order."""
    inlet, outlet = folder / "values.json", folder / "rows"
    lines = [
        json.dumps({"n": n, "hex": None if v is None else v.hex()}) for n, v in enumerate(values)
    ]
    inlet.write_text("\n".join(lines) + "\n", encoding="utf-8")
    cluster, job_id = FlinkCluster(flink_url(settings)), uuid4().hex
    jar = cluster.ensure_jar(ensure_runner_jar(settings))
    configuration = {"table.local-time-zone": "UTC", "restart-strategy.type": "none"}
    cluster.run(jar, script(source, inlet, outlet), job_id, configuration, 1)
    deadline = time.monotonic() + DEADLINE_S
    while (job := cluster.job(job_id)) is None or job.state != "FINISHED":
        assert job is None or job.state != "FAILED", cluster.exceptions(job_id)
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    text = b"".join(path.read_bytes() for path in outlet.glob("[!.]*"))
    rows = [json.loads(line, parse_float=Decimal) for line in text.split(b"\n") if line]
    assert len(rows) == len(values)
    return sorted(rows, key=lambda row: int(row["n_"]))


def script(source: SourcePlan, inlet: Path, outlet: Path) -> str:
    names = ", ".join(f"`{c.name}`" for c in source.columns)
    sink = ", ".join(
        f"`{c.name}` {'BIGINT' if c.type.kind == 'timestamp' else c.type.flink}"
        for c in source.columns
    )
    call = printed(_parsed(source, [c.name for c in source.columns])).replace("`_value`", "`v`")
    files = "WITH ('connector' = 'filesystem', 'format' = 'json', 'path' = 'file://"
    plain_decimals = "', 'json.encode.decimal-as-plain-number' = 'true')"
    parsed = f"LATERAL TABLE({call}) AS `parsed`({names}, `reason`)"
    bytes_ = "SELECT `n` AS `n_`, CAST(UNHEX(`hex`) AS BYTES) AS `v` FROM `texts`"
    sink = f"`n_` INT, `reason` STRING, {sink}"
    statements = [
        f"CREATE TEMPORARY FUNCTION `parse_json_row` AS '{FUNCTIONS['parse_json_row']}'",
        f"CREATE TEMPORARY TABLE `texts` (`n` INT, `hex` STRING) {files}{inlet}')",
        f"CREATE TEMPORARY TABLE `rows` ({sink}) {files}{outlet}{plain_decimals}",
        f"CREATE TEMPORARY VIEW `values` AS {bytes_}",
        f"INSERT INTO `rows` SELECT `n_`, `reason`, {names} FROM `values` CROSS JOIN {parsed}",
    ]
    return STATEMENT_END.join(statements) + STATEMENT_END


def plain(value: Any, type_: str) -> Any:
    """Read a value of Flink's answer as the judge has it."""
    if value is None:
        return None
    if type_.startswith("decimal"):
        return Decimal(value)
    if type_ == "float64":
        return float(value)
    readers: dict[str, Callable[[Any], Any]] = {
        "date": date.fromisoformat,
        "bytes": base64.b64decode,
        "vector": lambda floats: [_as_float(one) for one in floats],
    }
    read = readers.get(type_.split("(", maxsplit=1)[0])
    return value if read is None else read(value)


def _as_float(number: Any) -> float:
    """Return the float of 32 bits that its shortest text means."""
    found: float = struct.unpack("f", struct.pack("f", float(number)))[0]
    return found


@pytest.mark.parametrize(("seed", "event_time"), [(1, "timestamp"), (2, "int64")])
def test_both_judges_give_each_value_the_same_verdict(
    live_stack: Settings, seed: int, event_time: str, tmp_path: Path
) -> None:
    types = {**COLUMNS, "at": event_time}
    values = some_bytes(types, Random(seed))
    columns = tuple(
        Column(name, parse_type(text), RENAMED.get(name))
        for name, text in {**types, **RENAMED_TYPES}.items()
    )
    plan = payments("s", columns=columns, allowed_lateness_ms=FOREVER_MS, clock_skew_ms=FOREVER_MS)
    classifier, tally = Classifier(plan), dict.fromkeys(("malformed", "schema", None), 0)
    for value, row in zip(values, by_flink(live_stack, plan, values, tmp_path), strict=True):
        verdict = classifier.classify(value, 10**12)
        reason = row["reason"]
        assert verdict.reason == reason, (value, verdict.detail)
        tally[reason] += 1
        if reason is None:
            told = {c.name: plain(row[c.name], str(c.type)) for c in columns}
            found = dict(zip([c.name for c in columns], verdict.values, strict=True))
            assert found == told, value
    assert min(tally.values()) > EVENTS / 20, tally
