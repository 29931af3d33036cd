"""Which form of an answer a request asks for."""

import pytest

from serving.errors import BadRequest, NotAcceptable
from serving.forms import COLUMNAR, FORMS, JSON, MSGPACK, ROWS, form_of


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
