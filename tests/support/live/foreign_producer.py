"""A producer of payments that knows nothing of Millrace: confluent-kafka and the stdlib alone.

    python tests/support/live/foreign_producer.py --bootstrap HOST:PORT --topic payments --rate 2000 --seconds 60

Open loop: message n leaves at n/rate seconds, whatever became of those before it. SIGTERM ends it
early and cleanly. The last line of stdout is a JSON object with what the broker acknowledged.

What it sends is as untidy as the world: events out of order, late within what is allowed and
beyond it, ahead of the clock within the skew and beyond it, the same event twice (half of the
copies with another amount, half on another partition: the first to arrive counts), ties, null keys,
null and absent values, and one in a hundred that is no event at all.
"""

import argparse
import json
import random
import signal
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

CUSTOMERS = (*range(1, 301), 0, -5, 9_007_199_254_740_993, -(2**63), 2**63 - 1)
SHOPS = (
    *(f"shop-{n}" for n in range(1, 101)),
    *("", " ", "12", "a:b/{c}", "\N{SNOWMAN} caf\u00e9", "x" * 200, "quote\"'\\", "line\nbreak"),
)
STEP_S = 0.01
REMEMBERED = 4_000
"""Copies are made of any of this many messages sent before."""

Payment = dict[str, Any]


class Message(NamedTuple):
    """One record; ``partition`` follows from the key, but for copies that went astray."""

    kind: str
    key: bytes | None
    value: bytes | None
    partition: int


class Mixture:
    """Draws messages; the same seed and clock give the same messages."""

    def __init__(self, seed: int, *, partitions: int, lateness_ms: int, skew_ms: int) -> None:
        self._draw = random.Random(seed)
        self._prefix, self._count = f"e{seed}", 0
        self._partitions, self._lateness_ms, self._skew_ms = partitions, lateness_ms, skew_ms
        self._sent: deque[tuple[Payment, bytes | None, int]] = deque(maxlen=REMEMBERED)
        self._last_ms = 0

    def next(self, now_ms: int) -> Message:
        """Return the next message of a world in which it is ``now_ms``."""
        chance = self._draw.random()
        if chance < 0.03 and self._sent:
            return self._copy()
        payment, kind = self._payment(now_ms)
        key = None if payment["customer_id"] is None else str(payment["customer_id"]).encode()
        partition = zlib.crc32(key or payment["id"].encode()) % self._partitions
        if chance > 0.99:
            kind, value = self._broken(payment)
            return Message(kind, key, value, partition)
        self._sent.append((payment, key, partition))
        return Message(kind, key, self._encoded(payment), partition)

    def _copy(self) -> Message:
        payment, key, partition = self._draw.choice(self._sent)
        if self._draw.random() < 0.5:
            payment = {**payment, "amount": self._amount()}
        if self._draw.random() < 0.5:
            partition = self._draw.randrange(self._partitions)
        return Message("copy", key, self._encoded(payment), partition)

    def _payment(self, now_ms: int) -> tuple[Payment, str]:
        draw = self._draw
        self._count += 1
        kind, event_ms = self._moment(now_ms)
        # Squares favour the first: a few customers are busy, some are seen once.
        customer: int | None = CUSTOMERS[int(len(CUSTOMERS) * draw.random() ** 2)]
        shop: str | None = SHOPS[int(len(SHOPS) * draw.random() ** 2)]
        if draw.random() < 0.005:
            customer, kind = None, "null_customer"
        if draw.random() < 0.005:
            shop, kind = None, "null_shop"
        payment: Payment = {
            "id": f"{self._prefix}-{self._count}",
            "at": event_ms,
            "customer_id": customer,
            "shop": shop,
            "amount": None if draw.random() < 0.02 else self._amount(),
            "weight": None if draw.random() < 0.05 else draw.choice(_WEIGHTS)(draw),
            "items": draw.randint(-3, 2_000_000),
            "is_gift": draw.choice((True, False, None)),
            "taste": None if draw.random() < 0.05 else [draw.gauss(0.0, 1.0) for _ in range(3)],
        }
        if draw.random() < 0.05:
            del payment["weight"]
        if draw.random() < 0.1:
            payment["ignored"] = {"deep": [1, {"er": None}], "text": "}{"}
        return payment, kind

    def _moment(self, now_ms: int) -> tuple[str, int]:
        draw, chance = self._draw, self._draw.random()
        if chance < 0.70:
            kind, event_ms = "fresh", now_ms - int(draw.expovariate(1 / 400))
        elif chance < 0.80:
            kind, event_ms = "tie", self._last_ms or now_ms
        elif chance < 0.90:
            kind, event_ms = "out_of_order", now_ms - draw.randint(1_000, 150_000)
        elif chance < 0.93:
            kind, event_ms = "late_inside", now_ms - draw.randint(0, self._lateness_ms - 30_000)
        elif chance < 0.95:
            kind, event_ms = "late_beyond", now_ms - self._lateness_ms - draw.randint(1, 9_000_000)
        elif chance < 0.98:
            kind, event_ms = "ahead_inside", now_ms + draw.randint(1, self._skew_ms * 7 // 10)
        else:
            beyond = draw.randint(self._skew_ms + 5_000, self._skew_ms + 9_000_000)
            kind, event_ms = "ahead_beyond", now_ms + beyond
        if kind in {"fresh", "out_of_order"}:
            self._last_ms = event_ms
        return kind, event_ms

    def _amount(self) -> str:
        return f"{self._draw.randint(-500, 99_999)}.{self._draw.randint(0, 99):02}"

    def _encoded(self, payment: Payment) -> bytes:
        """Write it as a careless program might: any order, spaces, numbers or text."""
        draw, shown = self._draw, dict(payment)
        if draw.random() < 0.3:
            at = datetime.fromtimestamp(payment["at"] / 1000, tz=UTC)
            shown["at"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        names = list(shown)
        draw.shuffle(names)
        fields = ((json.dumps(n), self._field(n, shown[n])) for n in names)
        return ("{" + ", ".join(f"{name}:{value}" for name, value in fields) + "}").encode()

    def _field(self, name: str, value: object) -> str:
        if name == "amount" and value is not None and self._draw.random() < 0.7:
            return str(value)  # a JSON number of two decimals, else the same in quotes
        return json.dumps(value, ensure_ascii=self._draw.random() < 0.5)

    def _broken(self, payment: Payment) -> tuple[str, bytes | None]:
        kind = self._draw.choice(tuple(BROKEN))
        return kind, BROKEN[kind](payment)


_WEIGHTS: tuple[Callable[[random.Random], float], ...] = (
    lambda draw: draw.gauss(50.0, 12.0),
    lambda draw: draw.uniform(-1e-3, 1e-3),
    lambda draw: float(draw.randint(0, 9)),
    lambda draw: draw.uniform(1.0, 2.0) * 10 ** draw.randint(-5, 6),
)


def _plain(payment: Payment, **changed: object) -> bytes:
    return json.dumps({**payment, **changed}).encode()


BROKEN: dict[str, Callable[[Payment], bytes | None]] = {
    "truncated": lambda p: _plain(p)[:-7],
    "not_utf8": lambda p: _plain(p).replace(b'"id"', b'"\xff\xfe": 1, "id"'),
    "array": lambda p: b"[" + _plain(p) + b"]",
    "trailing": lambda p: _plain(p) + b"xx",
    "empty": lambda _: b"",
    "tombstone": lambda _: None,
    "nan": lambda p: _plain(p, weight=float("nan")),
    "wrong_type": lambda p: _plain(p, items="many"),
    "short_vector": lambda p: _plain(p, taste=[0.5, 1]),
    "fractional_time": lambda p: _plain(p, at=p["at"] + 0.5),
}
"""Ten ways not to be an event: the first seven are no JSON object, the others misfit the types."""


def main() -> int:
    """Send until the time is over or SIGTERM comes; print what was acknowledged."""
    from confluent_kafka import Producer

    args = _arguments()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    mixture = Mixture(
        args.seed, partitions=args.partitions, lateness_ms=args.lateness_ms, skew_ms=args.skew_ms
    )
    counts: Counter[str] = Counter()
    producer = Producer(
        {
            "bootstrap.servers": args.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": 180_000,
            "queue.buffering.max.messages": 1_000_000,
            "logger": _quiet(),
        }
    )

    def delivered(error: object, _: object) -> None:
        counts["failed" if error else "delivered"] += 1

    began, sent = time.monotonic(), 0
    total = int(args.rate * args.seconds)
    while sent < total and not stopped:
        due = min(total, int((time.monotonic() - began) * args.rate) + 1)
        while sent < due:
            message = mixture.next(time.time_ns() // 1_000_000)
            counts[f"sent_{message.kind}"] += 1
            producer.produce(
                args.topic,
                key=message.key,
                value=message.value,
                partition=message.partition,
                on_delivery=delivered,
            )
            sent += 1
        producer.poll(0)
        time.sleep(STEP_S)
    unsent = producer.flush(180)
    seconds = round(time.monotonic() - began, 3)
    sys.stdout.write(json.dumps({"sent": sent, "unsent": unsent, "s": seconds, **counts}) + "\n")
    return 1 if unsent or counts["failed"] else 0


def _quiet() -> Any:
    """A broker that dies is part of the plan: no line for each reconnection."""
    import logging

    logger = logging.getLogger("foreign_producer")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="send untidy payments to a topic")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, default=2_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--lateness-ms", type=int, default=4_200_000)
    parser.add_argument("--skew-ms", type=int, default=5_000)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
