"""Dead dead letters of whole files: one for each that cannot be read, whatever the file is called."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from offline.raw.files import RawFile
from offline.tables.dead_letters import DeadLetters
from resources.lake.writing import Slices
from resources.settings import settings_from_env


@pytest.mark.parametrize("name", ["plain.csv", "it's.csv", "back\\slash.csv", "') OR TRUE --.csv"])
def test_a_file_that_heals_takes_its_own_letter_away(tmp_path: Path, name: str) -> None:
    dead_letters = DeadLetters(settings_from_env({"MILLRACE_HOME": str(tmp_path)}), "payments")
    bad = [RawFile(str(tmp_path / n), 1, error="cut off") for n in (name, "other.csv")]
    for file in bad:
        Path(file.path).touch()
    dead_letters.replace_unreadable(bad, [])
    assert dead_letters.unreadable() == {file.path: "cut off" for file in bad}
    healed = replace(bad[0], error=None)
    dead_letters.replace_unreadable(bad[1:], [healed])
    assert dead_letters.unreadable() == {bad[1].path: "cut off"}


def test_days_and_hours_are_asked_for_by_the_column_that_is_named() -> None:
    monday, tuesday = date(2024, 3, 4), date(2024, 3, 5)
    slices = Slices.of_hours([monday, tuesday], {tuesday: range(3)})
    assert slices.predicate("at", "event_day") == (
        "(event_day >= DATE'2024-03-04' AND event_day <= DATE'2024-03-04') OR "
        "(event_day = DATE'2024-03-05' AND at >= 1709596800000 AND at < 1709607600000)"
    )
