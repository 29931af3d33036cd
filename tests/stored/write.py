"""Writes what a version of Millrace leaves behind, to be read by later ones: see README.md.

    python tests/stored/write.py OUT.tar.xz

Run by the checkout that is to be kept, with a free ``MILLRACE_HOME``. Everything is done by its
commands, so that this file asks nothing of its modules.
"""

import base64
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import DeltaTable
from redis import Redis

VIEWS = ("kept_spend", "kept_pairs")
TOPIC = "kept_payments"
START = datetime(2026, 11, 27, tzinfo=UTC)
BATCH_DAYS = 3
BATCH_EVENTS, STREAM_EVENTS = 110, 40
STREAM_MINUTES = 50
"""Events of the stream lie in the last minutes before it is sent: later ones would be too late."""
DEADLINE_S = 180.0
CUSTOMERS = (1, 2, 2**40, None)
SHOPS = ("a", "b", "söld \N{SNOWMAN}", "", None)

SCHEMA = pa.schema(
    [
        ("payment_id", pa.int64()),
        ("paid_at", pa.timestamp("ms", "UTC")),
        ("customer_id", pa.int64()),
        ("shop", pa.string()),
        ("amount", pa.decimal128(12, 2)),
        ("items", pa.int32()),
        ("points", pa.int64()),
        ("weight", pa.float64()),
        ("by_card", pa.bool_()),
        ("seen_at", pa.timestamp("ms", "UTC")),
        ("due", pa.date32()),
        ("token", pa.binary()),
    ]
)


def payments(begin: datetime, end: datetime, first: int, count: int) -> list[dict[str, Any]]:
    """Return payments in the order of their times: ties, nulls, extremes."""
    draw, rows, span_s = random.Random(first), [], (end - begin).total_seconds()
    seconds = [
        draw.choice([draw.randrange(int(span_s)), draw.random() * span_s]) for _ in range(count)
    ]
    seconds[1] = seconds[0]
    for number, second in enumerate(sorted(seconds), first):
        at = begin + timedelta(milliseconds=int(second * 1000))
        rows.append(
            {
                "payment_id": number,
                "paid_at": at,
                "customer_id": draw.choice(CUSTOMERS),
                "shop": draw.choice(SHOPS),
                "amount": draw.choice([None, Decimal(draw.randrange(-9999, 9999)).scaleb(-2)]),
                "items": draw.choice([None, draw.randrange(-5, 5)]),
                "points": draw.choice([None, 2**53 + 1, -(2**61), draw.randrange(100)]),
                "weight": draw.choice([None, 0.1, -0.0, draw.random() * 1e6]),
                "by_card": draw.choice([None, True, False]),
                "seen_at": draw.choice([None, at - timedelta(milliseconds=7)]),
                "due": draw.choice([None, at.date() + timedelta(days=draw.randrange(30))]),
                "token": draw.choice([None, b"", draw.randbytes(3)]),
            }
        )
    return rows


def millrace(*arguments: str) -> str:
    """Run one of the version's own commands."""
    sys.stderr.write(f"millrace {' '.join(arguments)}\n")
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def url(part: str) -> str:
    return str(json.loads(millrace("status", "--json"))["parts"][part]["url"])


def send(bootstrap: str, rows: list[dict[str, Any]]) -> None:
    """Send payments, those of a customer in the order of their times."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(TOPIC, 2, 1)])[TOPIC].result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for row in rows:
        text = json.dumps(row, default=plain)
        # A decimal goes as an exact number.
        if row["amount"] is not None:
            text = text.replace(f'"amount": "{row["amount"]}"', f'"amount": {row["amount"]}')
        place = (row["customer_id"] or 0) % 2
        producer.produce(TOPIC, text.encode(), str(place), partition=place)
    if producer.flush(30):
        raise RuntimeError("not delivered")


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def records(bootstrap: str, topic: str) -> Iterator[dict[str, Any]]:
    """Yield all records of a topic, partition by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "keeper"})
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        begin, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        consumer.assign([TopicPartition(topic, partition, begin)])
        reached = begin
        while reached < end:
            message = consumer.poll(10)
            if message is None or message.error():
                raise RuntimeError(f"{topic}/{partition} is not read")
            reached = message.offset() + 1
            yield {
                "partition": partition,
                "offset": message.offset(),
                "key": text_of(message.key()),
                "value": text_of(message.value()),
            }
    consumer.close()


def text_of(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def store_content(store: "Redis") -> dict[str, Any]:
    """Return every key of the store, base64, with its string or its hash."""
    held: dict[str, Any] = {}
    for key in sorted(store.scan_iter()):
        is_hash = store.type(key) == b"hash"
        content: Any = store.hgetall(key) if is_hash else store.get(key)
        held[text_of(key) or ""] = (
            {text_of(k): text_of(v) for k, v in sorted(content.items())}
            if is_hash
            else text_of(content)
        )
    return held


def wait_until_archived(lake: Path, events: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while DeltaTable(str(lake / "events" / TOPIC)).to_pyarrow_table().num_rows < events:
        if time.monotonic() > end:
            raise TimeoutError("the stream is not archived")
        time.sleep(0.5)


def wait_until_stored(store: "Redis", lookups: list[list[str]]) -> list[Any]:
    """Return the answers once nothing lags behind."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        told = [json.loads(v) for v in store.hgetall(b"m1:progress").values()]
        if len(told) == len(VIEWS) and not any(
            t["progress_ms"] is None or t["source_lag"] or t["tile_lag"] for t in told
        ):
            return [json.loads(millrace(*asked)) for asked in lookups]
        time.sleep(0.5)
    raise TimeoutError("the stream is not stored")


def without_flights(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out the tables of the example that every checkout declares."""
    entry.uid = entry.gid = 0
    return None if "flights" in entry.name else entry


def main() -> None:
    out, folder = Path(sys.argv[1]), Path(os.environ["MILLRACE_HOME"]).absolute()
    data = folder / "data"
    data.mkdir(parents=True)
    os.environ |= {
        "MILLRACE_DATA": str(data),
        "MILLRACE_LAKE": str(folder / "lake"),
        "MILLRACE_VIEWS": str(Path(__file__).parent / "views"),
    }
    batch_end = START + timedelta(days=BATCH_DAYS)
    batch = payments(START, batch_end, 0, BATCH_EVENTS)
    pq.write_table(pa.Table.from_pylist(batch, SCHEMA), data / "payments.parquet")
    days = ["--start", f"{START:%Y-%m-%d}", "--end", f"{batch_end:%Y-%m-%d}"]
    millrace("backfill", *VIEWS, *days)
    millrace("down")
    millrace("up", "kafka", "flink", "store", "writer", "server")
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    begin = now - timedelta(minutes=STREAM_MINUTES)
    send(url("kafka"), payments(begin, now, BATCH_EVENTS, STREAM_EVENTS))
    millrace("stream", "deploy", *VIEWS)
    for view in VIEWS:
        millrace("upload", view)
    store = Redis.from_url(url("store"))
    keys = [str(key) for key in CUSTOMERS if key is not None]
    pairs = [json.dumps({"customer_id": c, "shop": s}) for c in (1, 2) for s in ("a", "b")]
    answers = wait_until_stored(
        store,
        [
            ["lookup", "kept_customer", *keys, "--features", "kept_spend:*", "--json"],
            ["lookup", "kept_customer,kept_shop", *pairs, "--features", "kept_pairs:*", "--json"],
        ],
    )
    wait_until_archived(folder / "lake", BATCH_EVENTS + STREAM_EVENTS)
    plans = {v: json.loads(store.hget("m1:plans", f"view:{v}") or b"") for v in VIEWS}
    topics = [plan["versions"][0]["tile_topic"] for plan in plans.values()]
    kept = {
        "tiles.json": {topic: list(records(url("kafka"), topic)) for topic in topics},
        "events.json": list(records(url("kafka"), TOPIC)),
        "store.json": store_content(store),
        "answers.json": answers,
    }
    for name, content in kept.items():
        (data / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    with tarfile.open(out, "w:xz") as archive:
        archive.add(folder / "lake", "lake", filter=without_flights)
        archive.add(folder / "streams", "streams", filter=without_flights)
        for file in sorted(data.iterdir()):
            archive.add(file, file.name)
    millrace("down")


if __name__ == "__main__":
    main()
