"""Which form of an answer a request asks for."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from millrace.plan import EntityPlan
from millrace.published import PublishedView
from millrace.types import parse_type
from millrace.windows import Lifetime
from serving.catalog import Catalog, served_view
from serving.errors import BadRequest, NotAcceptable
from serving.forms import ARROW, COLUMNAR, FORMS, JSON, MSGPACK, ROWS, form_of
from serving.rendering import KeyRenderer
from tests.support.online_cases import feature_of, view_of
from tests.support.serving_harness import version_of


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, JSON),
        (b"", JSON),
        (b"*/*", JSON),
        (b"application/json", JSON),
        (b"application/json; charset=utf-8", JSON),
        (b"application/json;profile=columnar", COLUMNAR),
        (b'Application/JSON ; Profile="columnar"; q=0.3', COLUMNAR),
        (b"application/msgpack", MSGPACK),
        (b"text/html, application/msgpack;q=0.9, */*;q=0.8", MSGPACK),
        (b"application/msgpack;q=0.2, application/json;q=0.3", JSON),
        (b"application/*", JSON),
        # What names a form most closely says how welcome it is.
        (b"application/json;q=0.4, application/json;profile=columnar;q=0.5", COLUMNAR),
        (b"*/*, application/json;q=0", MSGPACK),
        (b"nonsense, application/msgpack", MSGPACK),
    ],
)
def test_a_request_gets_the_form_it_prefers(accept: bytes | None, media_type: str) -> None:
    assert form_of(accept).media_type == media_type


@pytest.mark.parametrize(
    "accept",
    [
        b"text/html",
        b"application/json;q=0",
        b"application/json;profile=rows",
        b"application/msgpack;q=2",
        b"application/msgpack;q=much",
        b"json",
        b"\xff",
    ],
)
def test_what_excludes_every_form_is_told_what_there_is(accept: bytes) -> None:
    with pytest.raises(NotAcceptable) as refused:
        form_of(accept)
    assert all(form.media_type in refused.value.fix for form in FORMS)


def test_only_columns_leave_the_event_times_out() -> None:
    with pytest.raises(BadRequest, match=r"options\.ts"):
        ROWS.without_ts()
    with pytest.raises(BadRequest, match=r"options\.ts"):
        form_of(MSGPACK.encode()).without_ts()
    assert form_of(COLUMNAR.encode()).without_ts().media_type == COLUMNAR


@pytest.mark.parametrize(
    ("type_", "key", "value"),
    [
        ("int32", 5, 5),
        ("string", "a", "a"),
        ("bool", True, True),
        ("decimal(12,2)", Decimal("1.5"), Decimal("1.50")),
        ("timestamp", "2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("date", "2026-01-02", date(2026, 1, 2)),
        ("bytes", "YWI=", b"ab"),
    ],
)
def test_keys_have_their_type_in_arrow_and_what_is_none_is_null(
    type_: str, key: Any, value: Any
) -> None:
    view = view_of(
        [feature_of("n", "count", Lifetime(300_000))],
        entities=(EntityPlan("thing", "k", parse_type(type_)),),
    )
    published = PublishedView(view.name, ("thing",), "v1", (version_of(view),))
    plan = Catalog({view.name: served_view(published)}).lookup_plan("thing", (("n", None),))
    asked = KeyRenderer(plan, {})
    absent = plan.reads[0].served.online.absent(5, plan.reads[0].places)
    form = form_of(ARROW.encode()).without_ts()
    parts = form.parts(asked, [key], [absent])
    parts.append(form.invalid(asked, [key], BadRequest("no key", where="keys[1]", fix="mend it")))
    table = pa.ipc.open_stream(form.body(asked, "thing", 5, parts)).read_all()
    assert table.to_pydict() == {
        "k": [value, None],
        "key.status": ["NOT_FOUND", "INVALID_KEY"],
        "n": [0, None],
        "n.status": ["NOT_FOUND", "INVALID_KEY"],
    }
    assert json.loads(table.schema.metadata[b"errors"]) == [
        {"place": 1, "message": "no key", "where": "keys[1]", "fix": "mend it"}
    ]
