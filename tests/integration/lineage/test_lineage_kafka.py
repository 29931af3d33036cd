"""Lineage into a real broker: in order by run, and nothing lost while it is away."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lineage.outbox import Outbox
from lineage.shipping import ship
from resources.endpoints import kafka_bootstrap
from resources.kafka import client as kafka
from resources.kafka.client import Topic
from resources.settings import Settings

pytestmark = pytest.mark.services

TOPIC = "openlineage.events"


def test_events_arrive_in_order_keyed_by_run(live_stack: Settings, tmp_path: Path) -> None:
    bootstrap = kafka_bootstrap(live_stack)
    kafka.ensure_topics(bootstrap, [Topic(TOPIC, 3, {})])
    away = replace(live_stack, home=tmp_path, lineage=f"kafka://127.0.0.1:9/{TOPIC}")
    outbox = Outbox.of(away)
    for run in ("a", "b"):
        outbox.start(run, "o", {"run": run, "state": "START"})
    outbox.end("a", "COMPLETE", {"run": "a", "state": "COMPLETE"})
    outbox.add_static({"job": {"namespace": "millrace", "name": "stream/x"}})
    [found] = ship(away, budget_s=1.0)
    assert (found.sent, found.waiting) == (0, 4)
    assert found.error
    [found] = ship(replace(away, lineage=f"kafka://{bootstrap}/{TOPIC}"))
    assert (found.sent, found.waiting, found.error) == (4, 0, "")
    by_key: dict[str, list[object]] = {}
    for key, value in read(bootstrap):
        by_key.setdefault(key, []).append(json.loads(value))
    assert by_key == {
        "a": [{"run": "a", "state": "START"}, {"run": "a", "state": "COMPLETE"}],
        "b": [{"run": "b", "state": "START"}],
        "millrace/stream/x": [{"job": {"namespace": "millrace", "name": "stream/x"}}],
    }


def read(bootstrap: str) -> list[tuple[str, str]]:
    from confluent_kafka import TopicPartition

    consumer = kafka.consumer(
        bootstrap, **{"group.id": "lineage-test", "auto.offset.reset": "earliest"}
    )
    try:
        ends = kafka.end_offsets(bootstrap, TOPIC)
        consumer.assign([TopicPartition(TOPIC, p, 0) for p in ends])
        messages = consumer.consume(sum(ends.values()), timeout=30)
        return [(m.key().decode(), m.value().decode()) for m in messages]
    finally:
        consumer.close()
