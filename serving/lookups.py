"""Answers lookups: from a body, or a parsed request, to the bytes of an answer.

The front ends stand on this, be they callbacks of a protocol or coroutines of a framework. What is
often asked, rows of one view that hold, is answered in two callbacks without a task; everything else
goes through the engine. Both write with the same renderer.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from millrace.codec import hash_tag, integer_part
from millrace.errors import StoreError
from serving.access import Access, Decision, open_to_all
from serving.catalog import Catalog, LookupPlan
from serving.engine import HEADS, LookupEngine, LookupResult
from serving.errors import DeadlineExceeded, NotReady
from serving.forms import ENTITY, ROWS, Form
from serving.keys import key_of_text
from serving.plans import PublishedPlans
from serving.rendering import KeyRenderer, RowRead
from serving.requests import NO_OPTIONS, Lookup, parse_lookup, pinned_body
from serving.store import Rows

Done = Callable[[bytes | None, Exception | None], None]
"""Takes the body of an answer, or what went wrong."""

KEYS_AT_ONCE = 200
"""Keys answered between two chances for other requests."""

_MOST_KEPT = 4096
_FAR_MS = 2**64
_BOUNDS = {"int32": 2**31, "int64": 2**63}


class CompiledLookup:
    """A plan with all that does not differ between its requests."""

    def __init__(self, plan: LookupPlan, decision: Decision) -> None:
        self.plan = plan
        self.renderer = KeyRenderer(plan, decision.masks)
        kinds = [type_.kind for _, type_ in plan.join_keys]
        self._bound = _BOUNDS.get(kinds[0], 0) if len(kinds) == 1 else 0
        self.is_quick = self.renderer.is_plain and self._bound > 0
        self.served = plan.reads[0].served
        self.read_row: Callable[[bytes], RowRead] = self.served.online.rows.read
        self.merged_at = self.served.online.merged_at

    def row_keys(self, keys: Sequence[Any]) -> list[bytes] | None:
        """Return the keys of rows; None if one of the keys asked for takes a closer look."""
        tail, bound = self.served.row_tail, self._bound
        found = []
        for key in keys:
            if type(key) is not int or not -bound <= key < bound:
                return None
            entity = integer_part(key)
            found.append(HEADS[hash_tag(entity)] + tail + entity)
        return found


class _Call:
    """One lookup under way; whatever happens first is its answer."""

    __slots__ = ("_done", "_timer", "compiled", "form", "is_strict", "keys", "keys_field", "task")

    def __init__(
        self,
        compiled: CompiledLookup,
        keys: Sequence[Any],
        keys_field: str,
        form: Form,
        done: Done,
        timeout_ms: int | None,
        *,
        is_strict: bool,
    ) -> None:
        self.compiled = compiled
        self.keys = keys
        self.keys_field = keys_field
        self.form = form
        self.is_strict = is_strict
        self.task: asyncio.Task[None] | None = None
        self._done: Done | None = done
        self._timer: asyncio.TimerHandle | None = None
        if timeout_ms is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(timeout_ms / 1000, self._give_up, timeout_ms)

    @property
    def is_over(self) -> bool:
        return self._done is None

    def finish(self, body: bytes | None, error: Exception | None = None) -> None:
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
        if done is not None:
            done(body, error)

    def _give_up(self, timeout_ms: int) -> None:
        if self.task is not None:
            self.task.cancel()
        error = DeadlineExceeded(
            f"there was no answer within {timeout_ms} ms",
            where="options.timeout_ms",
            fix="allow more time, or ask for fewer keys",
        )
        self.finish(None, error)


@dataclass
class Lookups:
    """The lookups of one server.

    Attributes:
        access: decides what a caller may see.
    """

    engine: LookupEngine
    plans: PublishedPlans
    access: Access = open_to_all
    _catalog: Catalog | None = None
    _compiled: dict[Any, CompiledLookup] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(
        self,
        body: bytes,
        authorization: bytes | None,
        done: Done,
        *,
        is_strict: bool,
        form: Form = ROWS,
    ) -> None:
        """Answer the body of ``:lookup``; ``done`` is called once, perhaps before this returns."""
        try:
            decision = self.access(authorization)
            pinned = pinned_body(body)
            compiled = None
            if pinned is not None:
                asked = (pinned.entity_name, bytes(pinned.features), decision.policy_class)
                if self._catalog is self.plans.catalog:
                    compiled = self._compiled.get(asked)
                keys: Sequence[Any] = pinned.keys
                options = pinned.options or NO_OPTIONS
            if compiled is None:
                lookup = parse_lookup(body)
                compiled = self._compile(lookup, decision)
                keys, options = lookup.keys, lookup.options
                if pinned is not None:
                    self._keep(asked, compiled)
            if not options.ts:
                form = form.without_ts()
            timeout_ms = options.timeout_ms
            self._start(_Call(compiled, keys, "keys", form, done, timeout_ms, is_strict=is_strict))
        except Exception as error:  # noqa: BLE001 - who asked is told by the kind of the error
            done(None, error)

    async def answer_body(
        self, body: bytes, authorization: bytes | None, *, is_strict: bool, form: Form
    ) -> bytes:
        """Answer the body of ``:lookup``; raises as ``answer``."""
        return await _told(
            lambda done: self.begin(body, authorization, done, is_strict=is_strict, form=form)
        )

    async def answer(
        self,
        lookup: Lookup,
        authorization: bytes | None,
        *,
        is_entity: bool = False,
        is_text: bool = False,
    ) -> bytes:
        """Answer a parsed request.

        Args:
            lookup: what is asked.
            authorization: the request's header.
            is_entity: the answer is about one entity, not a list.
            is_text: keys are written as in a path.

        Raises:
            PlatformError: the kind says which.
        """
        compiled = self._compile(lookup, self.access(authorization))
        keys = lookup.keys
        if is_text:
            keys = [key_of_text(compiled.plan.join_keys, text) for text in keys]
        form = ENTITY if is_entity else ROWS

        def start(done: Done) -> None:
            field_, timeout_ms = lookup.keys_field, lookup.options.timeout_ms
            self._start(
                _Call(compiled, keys, field_, form, done, timeout_ms, is_strict=lookup.is_strict)
            )

        return await _told(start)

    async def finish(self) -> None:
        """Wait for what runs in the background."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.finish()

    def known(self) -> Catalog:
        """Return what is published, as far as it is known.

        Raises:
            NotReady: publications were never read.
        """
        if self.plans.age_s is None:
            raise NotReady(
                "the online store did not answer yet, so nothing is known of any view",
                where="online store",
                fix="millrace status",
            )
        return self.plans.catalog

    def _compile(self, lookup: Lookup, decision: Decision) -> CompiledLookup:
        catalog = self.known()
        if self._catalog is not catalog:
            self._catalog = catalog
            self._compiled = {}
        asked = (lookup.entity_name, lookup.features, decision.policy_class)
        compiled = self._compiled.get(asked)
        if compiled is None:
            plan = catalog.lookup_plan(lookup.entity_name, lookup.features)
            compiled = CompiledLookup(plan, decision)
            self._keep(asked, compiled)
        return compiled

    def _keep(self, asked: Any, compiled: CompiledLookup) -> None:
        if len(self._compiled) >= _MOST_KEPT:
            self._compiled.clear()
        self._compiled[asked] = compiled

    def _start(self, call: _Call) -> None:
        compiled = call.compiled
        row_keys = None
        if compiled.is_quick and not call.form.is_aside and 0 < len(call.keys) <= KEYS_AT_ONCE:
            row_keys = compiled.row_keys(call.keys)
        if row_keys is None:
            self._start_engine(call, None)
        else:
            self.engine.store.read_rows(row_keys, partial(self._rows_found, call))

    def _rows_found(self, call: _Call, found: Rows | StoreError) -> None:
        if call.is_over:
            return
        try:
            if isinstance(found, StoreError):
                call.finish(None, found)
                return
            body = self._of_rows(call, found)
            if body is None:
                self._start_engine(call, found)
            else:
                call.finish(body)
        except Exception as error:  # noqa: BLE001 - as in begin
            call.finish(None, error)

    def _of_rows(self, call: _Call, found: Rows) -> bytes | None:
        """Return the answer if every row is there and tells of one instant.

        The instant is after the newest event of each row, as it is for the engine.
        """
        compiled = call.compiled
        read_row, merged_at = compiled.read_row, compiled.merged_at
        as_of_ms, until_ms = self.engine.now_ms() + 1, _FAR_MS
        rows = []
        for data in found:
            if data is None:
                return None
            try:
                row = read_row(data)
            except StoreError:
                return None  # the engine says so, and merges
            rows.append(row)
            _, values, newest_ms, ends_ms = row
            if newest_ms is not None and newest_ms >= as_of_ms:
                as_of_ms = newest_ms + 1
            as_of_ms = max(as_of_ms, values[merged_at])
            if ends_ms is not None and ends_ms < until_ms:
                until_ms = ends_ms
        if as_of_ms >= until_ms:
            return None
        metrics = self.engine.metrics
        metrics.keys.inc(len(rows))
        metrics.row_hits.inc(len(rows))
        progress_ms = compiled.served.progress_ms(self.plans.progress_ms)
        instant = compiled.renderer.instant(as_of_ms, progress_ms)
        entity_name = compiled.plan.entity_name
        return call.form.of_rows(compiled.renderer, entity_name, call.keys, rows, instant)

    def _start_engine(self, call: _Call, found: Rows | None) -> None:
        call.task = asyncio.get_running_loop().create_task(self._through_engine(call, found))
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)

    async def _through_engine(self, call: _Call, found: Rows | None) -> None:
        plan = call.compiled.plan
        try:
            result = await self.engine.lookup(
                plan,
                call.keys,
                self.plans.progress_ms,
                call.keys_field,
                is_strict=call.is_strict,
                rows=found,
            )
            form, renderer = call.form, call.compiled.renderer
            parts = await _parts(form, renderer, result)
            told = (renderer, plan.entity_name, result.as_of_ms, parts)
            call.finish(
                await asyncio.to_thread(form.body, *told) if form.is_aside else form.body(*told)
            )
        except Exception as error:  # noqa: BLE001 - as in begin
            call.finish(None, error)


async def _parts(form: Form, renderer: KeyRenderer, result: LookupResult) -> list[Any]:
    """Return what the form says of each key of a result of the engine."""
    reads = [
        (
            cells,
            read.served.online.at(result.as_of_ms, progress_ms, read.places),
            read.served.online.absent(result.as_of_ms, read.places),
        )
        for read, cells, progress_ms in zip(
            result.plan.reads, result.cells, result.progress_ms, strict=True
        )
    ]
    parts: list[Any] = []
    for first in range(0, len(result.keys), KEYS_AT_ONCE):
        if first:
            await asyncio.sleep(0)
        places = range(first, min(first + KEYS_AT_ONCE, len(result.keys)))
        told = []
        for place in places:
            rows = [None if (cell := cells[place]) is None else cell.row for cells, _, _ in reads]
            told.append(
                [
                    answer
                    for row, (_, moment, absent) in zip(rows, reads, strict=True)
                    for answer in (absent if row is None else moment.answer(row))
                ]
            )
        made = form.parts(renderer, [result.keys[place] for place in places], told)
        for place, part in zip(places, made, strict=True):
            fault, key = result.invalid.get(place), result.keys[place]
            parts.append(part if fault is None else form.invalid(renderer, key, fault))
    return parts


async def _told(start: Callable[[Done], None]) -> bytes:
    """Return what is answered to ``start``, or raise what went wrong."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def done(body: bytes | None, error: Exception | None) -> None:
        if answer.done():
            return
        if body is not None:
            answer.set_result(body)
        elif error is not None:
            answer.set_exception(error)

    start(done)
    return await answer
