"""Publications survive their trip through the store, and say what is wrong with others."""

import json
from dataclasses import replace

import pytest

from millrace.errors import NotDeclared, SetupError, StoreError
from millrace.published import PublishedVersion, PublishedView
from resources.store.client import open_store
from resources.store.errors import StoreUnavailable
from resources.store.opening import open_online_store, shown_url

VERSION = PublishedVersion(
    version="v1",
    fingerprint="00ff10ef01fe80aa",
    plan={"document": "millrace/serving/v1", "slots": {"tile": []}},
    tile_topic="tiles",
    source_topic="source",
    flink_group="flink",
    state="live",
    cut_over_ms=86_400_000,
    sealed_before_ms=None,
    published_at_ms=5,
)
VIEW = PublishedView("spend", ("customer",), "v1", (VERSION, replace(VERSION, version="v2")))


def test_a_publication_comes_back_as_it_was() -> None:
    assert PublishedView.from_json(VIEW.to_json()) == VIEW


def test_a_field_of_a_newer_build_is_passed_over() -> None:
    document = json.loads(VIEW.to_json())
    document["colour"] = document["versions"][0]["colour"] = "blue"
    assert PublishedView.from_json(json.dumps(document)) == VIEW


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{}", VIEW.to_json().replace('"live"', '"lively"', 1)]
)
def test_what_is_no_publication_is_refused_with_the_mend(text: str) -> None:
    with pytest.raises(StoreError, match="millrace stream deploy VIEW"):
        PublishedView.from_json(text)


def test_a_version_is_found_by_name_and_a_wrong_name_names_the_nearest() -> None:
    assert VIEW.version("v2").version == "v2"
    with pytest.raises(NotDeclared, match="no version 'v3' is published"):
        VIEW.version("v3")


def test_only_retired_versions_are_fed_no_more() -> None:
    assert [replace(VERSION, state=s).is_fed for s in ("building", "live", "retired")] == [
        True,
        True,
        False,
    ]


def test_a_store_that_is_away_is_named_as_such() -> None:
    with pytest.raises(StoreUnavailable, match="the online store does not answer"):
        open_online_store("redis://127.0.0.1:1/0").publications.read()


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(SetupError, match="redis://host:port/0"):
        open_store("http://127.0.0.1:80")


def test_messages_show_no_password() -> None:
    assert shown_url("rediss://me:secret@store:6379/1") == "rediss://store:6379/1"
