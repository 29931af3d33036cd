"""Where Flink keeps the state of jobs, and how what is left behind is removed."""

import shutil
from pathlib import Path

from streaming.engines import Engines


def local_path(path: str) -> Path:
    """Return the folder that Flink's ``file:`` URL names."""
    return Path("/" + path.removeprefix("file:").lstrip("/"))


def is_there(path: str) -> bool:
    """Say whether state is still where it was put; what is not local is taken on trust."""
    is_local = path.startswith(("file:", "/"))
    return not is_local or (local_path(path) / "_metadata").exists()


def drop_checkpoints(engines: Engines, jobs: tuple[str, ...]) -> None:
    """Remove what jobs left behind; under NO_CLAIM nobody else does."""
    for job in jobs:
        shutil.rmtree(engines.checkpoints / job, ignore_errors=True)
