"""``millrace produce``: what is wrong with a call is said before anything is started or sent."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.produce import register
from millrace.errors import PlatformError
from tests.support.stream_fakes import write_views


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (["paymnts", "--file", "rows.csv"], "no source 'paymnts'", "did you mean 'payments'?"),
        (["payments", "--file", "gone.csv"], "there is no such file", ""),
        (["payments", "--file", "rows.xls"], "rows.xls is of no known format", ".parquet"),
        (["payments", "--file", "rows.csv", "--rate", "0"], "a rate of 0 rows", "--rate 500"),
        (["payments", "--file", "rows.csv", "--start", "May"], "'May'", "YYYY-MM-DD"),
    ],
)
def test_what_cannot_be_sent_is_said_before_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], what: str, fix: str
) -> None:
    write_views(tmp_path / "views")
    (tmp_path / "rows.csv").write_text("payment_id,paid_at,customer_id,amount\n")
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path / "views"))
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    result: Any = CliRunner().invoke(app, ["produce", *arguments])
    assert isinstance(result.exception, PlatformError)
    assert what in result.exception.what
    assert fix in result.exception.fix
    assert result.stderr == ""
    assert not (tmp_path / "home").exists()
