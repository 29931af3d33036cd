"""Aggregates and windows over real data, in the kernel and in DuckDB."""

import pytest

from tests.support.real_language import CASES, compare

pytestmark = pytest.mark.shared_data

ONE_KEY_OF = 50


@pytest.mark.parametrize("view", CASES)
def test_every_feature_of_a_share_of_the_keys_equals_duckdbs(view: str) -> None:
    compared = list(compare(view, one_key_of=ONE_KEY_OF))
    assert min(one.rows for one in compared) > 400
    assert [one for one in compared if one.wrong > one.allowed] == []
