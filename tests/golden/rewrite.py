"""What the golden files should hold, and ``python -m tests.golden.rewrite``, which writes them.

Goldens are reviewed text: they are never written by hand, and never by a test.
"""

import sys
from pathlib import Path
from typing import get_args

from cli.compiling import Target, artifact
from millrace.load.yaml import read_yaml
from millrace.plan import Plan
from millrace.resolve import resolve
from millrace.spec import Specs

GOLDEN = Path(__file__).parent
_SUFFIXES = {"spark": "sql", "flink": "sql"}


def golden_plan() -> Plan:
    """Return the plan of the views under ``views/``."""
    specs = Specs()
    for file in sorted((GOLDEN / "views").glob("*.yaml")):
        found, faults = read_yaml(file.read_text(encoding="utf-8"), file.name)
        if faults:
            raise SystemExit("\n".join(map(str, faults)))
        specs += found
    return resolve(specs)


def golden_files(plan: Plan) -> dict[str, str]:
    """Return the text of every golden file by its path under ``tests/golden``."""
    return {
        f"{target}/{view.name}.{_SUFFIXES.get(target, 'json')}": artifact(view, target)
        for view in plan.views.values()
        for target in get_args(Target)
    }


def main() -> None:
    """Write every golden file and remove those of views that are gone."""
    files = golden_files(golden_plan())
    for target in get_args(Target):
        for old in (GOLDEN / target).glob("*"):
            if f"{target}/{old.name}" not in files:
                old.unlink()
    for path, text in files.items():
        (GOLDEN / path).parent.mkdir(exist_ok=True)
        (GOLDEN / path).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(files)} golden files written\n")


if __name__ == "__main__":
    main()
