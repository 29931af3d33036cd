"""Compiled lookups: what is reused, what a new publication changes, what a caller may see."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from millrace.codec import online_key
from millrace.durations import HOUR_MS
from millrace.errors import NotDeclared
from millrace.plan import EntityPlan, ViewPlan
from millrace.published import PublishedView
from millrace.types import INT64
from millrace.windows import Sliding
from serving.access import Decision, open_to_all
from serving.catalog import Catalog, LookupPlan, served_view
from serving.engine import LookupEngine
from serving.errors import BadRequest, DeadlineExceeded
from serving.lookups import Lookups
from serving.metrics import ServerMetrics
from tests.reference import Event
from tests.support.online_cases import feature_of, packed_tiles, view_of
from tests.support.serving_harness import NOW_MS, version_of

BODY = b'{"entity_name": "customer", "keys": [7], "features": ["n_1h", "sum_1h"]}'
VIEW = view_of(
    [
        feature_of("n_1h", "count", Sliding(HOUR_MS, 300_000)),
        feature_of("sum_1h", "sum", Sliding(HOUR_MS, 300_000), INT64),
    ],
    name="spend",
    entities=(EntityPlan("customer", "customer_id", INT64),),
)
NEWER = replace(VIEW, fingerprint="2" * 16)


@dataclass
class HeldRows:
    """A store of rows that answers when the test says so."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def put(self, view: ViewPlan, customer: int, values: Sequence[int]) -> None:
        online = served_view(published(view)).versions["v1"].online
        events = [Event("k", NOW_MS - 5, NOW_MS - 5, v, number) for number, v in enumerate(values)]
        key = online_key(
            "row", view.name, view.fingerprint, online.join_keys, {"customer_id": customer}
        )
        merged = online.merge(packed_tiles(view, events), NOW_MS)
        self.rows[key] = online.rows.encode(merged)

    def read_rows(self, keys: Sequence[bytes], done: Callable[[Any], None]) -> None:
        self.waiting.append(lambda: done([self.rows.get(key) for key in keys]))

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one()


@dataclass
class Plans:
    catalog: Catalog
    progress_ms: dict[bytes, int] = field(default_factory=dict)
    age_s: float | None = 0.0


def published(view: ViewPlan, version: str = "v1") -> PublishedView:
    return PublishedView(view.name, ("customer",), version, (version_of(view, version),))


def catalog_of(view: ViewPlan, version: str = "v1") -> Catalog:
    return Catalog({view.name: served_view(published(view, version))})


@dataclass
class Told:
    body: Any = None
    error: Exception | None = None
    times: int = 0

    def __call__(self, body: bytes | None, error: Exception | None) -> None:
        self.body = None if body is None else json.loads(body)
        self.error = error
        self.times += 1

    @property
    def features(self) -> dict[str, Any]:
        (only,) = self.body["results"]
        return {name: (f["value"], f["version"]) for name, f in only["features"].items()}


def lookups_of(plans: Plans, store: HeldRows, **access: Any) -> Lookups:
    engine = LookupEngine(store, ServerMetrics(), lambda: NOW_MS)  # type: ignore[arg-type]
    return Lookups(engine, plans, **access)  # type: ignore[arg-type]


def ask(lookups: Lookups, body: bytes = BODY, authorization: bytes | None = None) -> Told:
    told = Told()
    lookups.begin(body, authorization, told, is_strict=False)
    return told


def test_a_new_publication_is_answered_at_once_and_mixes_with_no_answer_under_way() -> None:
    store, plans = HeldRows(), Plans(catalog_of(VIEW))
    store.put(VIEW, 7, [1, 2])
    store.put(NEWER, 7, [10])
    lookups = lookups_of(plans, store)
    before, again = ask(lookups), ask(lookups)
    plans.catalog = catalog_of(NEWER, "v2")
    after = ask(lookups)
    store.answer()
    old = {"n_1h": (2, "v1"), "sum_1h": (3, "v1")}
    assert (before.features, again.features) == (old, old)
    assert after.features == {"n_1h": (1, "v2"), "sum_1h": (10, "v2")}


def test_what_is_withdrawn_is_not_answered_of_what_was_compiled() -> None:
    store, plans = HeldRows(), Plans(catalog_of(VIEW))
    store.put(VIEW, 7, [1])
    lookups = lookups_of(plans, store)
    ask(lookups)
    store.answer()
    plans.catalog = catalog_of(replace(VIEW, features=VIEW.features[:1], fingerprint="3" * 16))
    assert isinstance(ask(lookups).error, NotDeclared)


def test_the_same_bytes_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[Any] = []
    real = Catalog.lookup_plan

    def resolve(catalog: Catalog, entity: str | None, features: Any) -> LookupPlan:
        resolved.append(features)
        return real(catalog, entity, features)

    monkeypatch.setattr(Catalog, "lookup_plan", resolve)
    store = HeldRows()
    lookups = lookups_of(Plans(catalog_of(VIEW)), store)
    store.put(VIEW, 7, [1])
    store.put(VIEW, 8, [1, 1])
    told = [ask(lookups), ask(lookups, BODY.replace(b"7", b"8")), ask(lookups)]
    store.answer()
    assert [one.features["n_1h"][0] for one in told] == [1, 2, 1]
    assert len(resolved) == 1


def test_who_asks_decides_what_is_shown() -> None:
    def access(authorization: bytes | None) -> Decision:
        if authorization is None:
            raise BadRequest("no token", where="authorization", fix="send one")
        masks = {} if authorization == b"boss" else {("spend", "sum_1h"): lambda _: "***"}
        return Decision(authorization == b"boss", masks)

    store = HeldRows()
    store.put(VIEW, 7, [4])
    lookups = lookups_of(Plans(catalog_of(VIEW)), store, access=access)
    told = [ask(lookups, BODY, who) for who in (b"boss", b"clerk", b"boss", b"other clerk", None)]
    store.answer()
    shown = [one.features["sum_1h"][0] for one in told[:-1]]
    assert shown == [4, "***", 4, "***"]
    assert isinstance(told[-1].error, BadRequest)
    assert open_to_all(b"anything") is open_to_all(None)


def test_an_answer_that_comes_too_late_is_not_given_twice() -> None:
    async def run() -> Told:
        store = HeldRows()
        store.put(VIEW, 7, [1])
        lookups = lookups_of(Plans(catalog_of(VIEW)), store)
        told = ask(lookups, BODY[:-1] + b', "options": {"timeout_ms": 1}}')
        async with asyncio.timeout(5):
            while not told.times:
                await asyncio.sleep(0)
        store.answer()
        return told

    told = asyncio.run(run())
    assert isinstance(told.error, DeadlineExceeded)
    assert told.times == 1
