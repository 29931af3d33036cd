"""The command's frame, and ``validate``, ``plan`` and ``export``."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cli
from cli.main import _MODULES, build_app, main
from cli.output import console, error_as_json, progress, show_json
from millrace.errors import Fault, PlatformError, SpecError
from resources.settings import CHECKOUT

VIEWS = """
version: millrace/v1
sources:
  - name: cards
    columns: {id: int64, ts: timestamp, customer_id: int64, amount: float64}
    event_time: ts
    batch: {format: csv, path: cards.csv}
entities: [{name: customer, join_key: customer_id, type: int64}]
feature_views:
  - name: spend
    entity: customer
    source: cards
    start: 2018-04-01
    filter: amount > 0
    features:
      - {name: tx_1h, aggregate: count, window: 1h}
      - {name: amount_sum_ever, aggregate: sum, column: amount, window: lifetime, offset: 7d}
feature_services: [{name: fraud, features: ["spend:*"]}]
"""


class Done(NamedTuple):
    """What a call of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that calls ``main`` with arguments, in a stack of its own."""
    folder = tmp_path / "views"
    folder.mkdir()
    (folder / "cards.yaml").write_text(VIEWS, encoding="utf-8")
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MILLRACE_VIEWS", str(folder))
    monkeypatch.delenv("MILLRACE_LAKE", raising=False)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["millrace", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


def test_validate_counts_what_is_declared_and_tells_warnings(run: Run, tmp_path: Path) -> None:
    done = run("validate", str(tmp_path / "views"))
    assert (done.code, done.out) == (
        0,
        "no faults in 1 sources, 1 entities, 1 feature views, 2 features, 1 feature services\n",
    )
    assert "warning spend: source cards names no event_id" in done.err


def test_a_warning_of_sixty_views_is_said_once(run: Run, tmp_path: Path) -> None:
    head, view = VIEWS.split("  - name: spend\n", 1)
    views = view.split("feature_services:")[0]
    many = "".join(f"  - name: spend_{i}\n{views}" for i in range(60))
    (tmp_path / "many.yaml").write_text(head + many, encoding="utf-8")
    done = run("validate", str(tmp_path / "many.yaml"))
    (warning,) = [line for line in done.err.splitlines() if "event_id" in line]
    named = "warning spend_0, spend_1, spend_2 and 57 more views: source cards names no event_id"
    assert warning.startswith(named)


def test_validate_as_json(run: Run, tmp_path: Path) -> None:
    document = run("validate", str(tmp_path / "views"), "--json").document
    assert (document["feature_views"], document["features"]) == (1, 2)
    assert document["warnings"][0]["view"] == "spend"


def test_validate_without_a_path_reads_every_folder_of_the_settings(run: Run) -> None:
    assert run("validate", "--json").document["sources"] > 1


def test_every_fault_is_shown_with_its_place_and_its_mend(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(VIEWS.replace("column: amount", "column: amout").replace("1h}", "1x}"), "utf-8")
    done = run("validate", str(bad))
    assert (done.code, done.out) == (1, "")
    assert "error: 2 faults in the declarations" in done.err
    assert f"{bad}:16: window: '1x' is not a duration" in done.err
    assert "fix: did you mean 'amount'?" in done.err


def test_one_fault_is_shown_as_one_error(run: Run, tmp_path: Path) -> None:
    done = run("validate", str(tmp_path / "gone"))
    assert done.code == 1
    assert done.err.startswith(f"error: {tmp_path}/gone: there is no such file or folder")


def test_faults_as_json_go_to_stdout(run: Run, tmp_path: Path) -> None:
    done = run("validate", str(tmp_path / "gone"), "--json")
    assert (done.code, done.err) == (1, "")
    error = done.document["error"]
    assert (error["code"], error["where"]) == ("spec_error", f"{tmp_path}/gone")
    assert error["faults"] == [{k: error[k] for k in ("what", "where", "fix")}]


def test_plan_shows_what_would_be_built(run: Run) -> None:
    done = run("plan", "spend")
    assert done.code == 0
    for part in (
        "spend", "customer (customer_id int64)", "cards, since 2018-04-01", "amount > 0", "of 5m",
        "not built yet", "count()", "sum(amount)", "lifetime", "7d", "nothing is deduplicated",
    ):  # fmt: skip
        assert part in done.out


def test_plan_as_json_names_every_choice(run: Run) -> None:
    document = run("plan", "spend", "--json").document
    (view,) = document["views"]
    assert "services" not in document
    assert (view["tile_hop_ms"], view["version"], len(view["fingerprint"])) == (300_000, None, 16)
    assert view["features"][1] == {
        "name": "amount_sum_ever", "type": "float64", "aggregate": "sum", "parameters": {}, "input": "amount",
        "window_ms": None, "hop_ms": 86_400_000, "offset_ms": 604_800_000, "reach_ms": None, "default": None, "description": "",
    }  # fmt: skip


def test_plan_of_everything_holds_the_services(run: Run) -> None:
    document = run("plan", "--json").document
    assert document["services"]["fraud"] == ["spend:tx_1h", "spend:amount_sum_ever"]
    assert "spend" in [view["name"] for view in document["views"]]


def test_plan_of_an_unknown_view_names_the_nearest(run: Run) -> None:
    done = run("plan", "spent")
    assert done.code == 1
    assert "no feature view 'spent'\n  fix: did you mean 'spend'?" in done.err


@pytest.mark.parametrize("form", ["yaml", "python"])
def test_an_export_stands_alone(run: Run, tmp_path: Path, form: str) -> None:
    suffix = {"yaml": "yaml", "python": "py"}[form]
    exported = tmp_path / f"exported.{suffix}"
    exported.write_text(run("export", "spend", "--format", form).out, encoding="utf-8")
    assert run("validate", str(exported), "--json").document["features"] == 2


def test_an_export_of_an_unknown_view_is_refused(run: Run) -> None:
    assert run("export", "spent").code == 1


@pytest.mark.parametrize(
    "arguments", [["plun"], ["export"], ["export", "spend", "--format", "xml"]]
)
def test_wrong_usage_ends_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


def test_every_module_of_commands_is_registered() -> None:
    room = Path(cli.__path__[0])
    with_commands = {
        ".".join(path.relative_to(room).with_suffix("").parts)
        for path in room.rglob("*.py")
        if "\ndef register(" in path.read_text(encoding="utf-8")
    }
    assert with_commands == set(_MODULES)
    assert {command.callback.__name__ for command in build_app().registered_commands if command.callback} >= {"validate", "plan", "export"}  # fmt: skip


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cli.main import build_app\nbuild_app()\n"
        "heavy = {'numpy', 'sqlglot', 'yaml', 'pyarrow', 'pandas', 'pyspark', 'deltalake', 'dagster'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_json_holds_dates_and_tuples(capsys: pytest.CaptureFixture[str]) -> None:
    from datetime import date

    show_json({"day": date(2020, 1, 2), "keys": ("a", "é"), "set": {1}, "path": Path("x")})
    assert json.loads(capsys.readouterr().out) == {
        "day": "2020-01-02", "keys": ["a", "é"], "set": [1], "path": "x"
    }  # fmt: skip


def test_an_error_as_json_has_faults_only_of_declarations() -> None:
    plain = error_as_json(PlatformError("no", where="here", fix="mend"))["error"]
    assert plain == {
        "code": "platform_error", "what": "no", "where": "here", "fix": "mend", "faults": []
    }  # fmt: skip
    spec = SpecError.of([Fault("a", "x:1"), Fault("b", "x:2", "c")])
    assert [f["where"] for f in error_as_json(spec)["error"]["faults"]] == ["x:1", "x:2"]


def test_markup_in_an_error_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.output import show_error

    show_error(PlatformError("write [1h, 1d] or [/red]", where="[x]"))
    assert capsys.readouterr().err == "error: [x]: write [1h, 1d] or [/red]\n"


def test_progress_without_a_terminal_prints_each_description_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("reading", total=2) as advance:
        advance()
        advance(description="reading [b]")
        advance(description="reading [b]")
    assert capsys.readouterr().err == "reading\nreading [b]\n"


def test_progress_on_a_terminal_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", 80)
    with progress("reading", total=4) as advance:
        advance(3)
        advance(completed=4, description="read")
    err = capsys.readouterr().err
    assert "read" in err
    assert "4/4" in err
