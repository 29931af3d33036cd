"""Where things are: the environment variables of SPEC §3, read once, as a typed record."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace.errors import SetupError

CHECKOUT = Path(__file__).resolve().parents[1]
"""The root of the installed checkout."""

_PLACEHOLDER = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")


@dataclass(frozen=True)
class Settings:
    """One stack's places. Every path is absolute; URLs are as given.

    Attributes:
        home: state of this stack: endpoints, logs, dagster_home, the default lake.
        cache: downloads shared by all stacks.
        views: directories of declarations, the repository's own first.
        data: folder of raw data that ``${MILLRACE_DATA}`` stands for; None if there is none.
        lake: root of the Delta tables: an absolute path or a URL such as ``s3a://bucket/lake``.
        spark_remote: Spark Connect URL of the user's own server; None for the local one.
        lineage: receivers of OpenLineage events, see ``resources.lineage.receivers``; None for a
            file under ``home``.
    """

    home: Path
    cache: Path
    views: tuple[Path, ...]
    data: str | None
    lake: str
    spark_remote: str | None
    kafka: str | None
    flink_url: str | None
    store_url: str | None
    lineage: str | None = None

    def expand(self, path: str, *, where: str = "") -> str:
        """Replace ``${MILLRACE_DATA}``, ``${MILLRACE_HOME}`` and other variables in a raw path.

        Relative paths count from the checkout.

        Raises:
            SetupError: a variable is not set.
        """

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            value = self._placeholders().get(name) or os.environ.get(name)
            if value is None:
                raise SetupError(
                    f"the path {path!r} needs {name}, which is not set",
                    where=where,
                    fix=f"export {name}=…",
                )
            return value

        expanded = _PLACEHOLDER.sub(replace, path)
        if "://" in expanded:
            return expanded
        return str(CHECKOUT / expanded)

    def _placeholders(self) -> Mapping[str, str | None]:
        return {
            "MILLRACE_HOME": str(self.home),
            "MILLRACE_CACHE": str(self.cache),
            "MILLRACE_DATA": self.data,
            "MILLRACE_LAKE": self.lake,
        }


def settings_from_env(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; ``env`` defaults to the process environment.

    Nothing is created and only ``../shared/data`` is looked for (the default of MILLRACE_DATA).
    """
    env = os.environ if env is None else env
    home = Path(env.get("MILLRACE_HOME") or CHECKOUT / ".millrace").absolute()
    cache = Path(env.get("MILLRACE_CACHE") or _default_cache(env)).absolute()
    extra = [p for p in env.get("MILLRACE_VIEWS", "").split(os.pathsep) if p]
    shared = CHECKOUT.parent / "shared" / "data"
    data = env.get("MILLRACE_DATA") or (str(shared) if shared.is_dir() else None)
    lake = env.get("MILLRACE_LAKE") or str(home / "lake")
    return Settings(
        home=home,
        cache=cache,
        views=(CHECKOUT / "feature_assets" / "views", *(Path(p).absolute() for p in extra)),
        data=data if data is None or "://" in data else str(Path(data).absolute()),
        lake=lake if "://" in lake else str(Path(lake).absolute()),
        spark_remote=env.get("MILLRACE_SPARK_REMOTE") or None,
        kafka=env.get("MILLRACE_KAFKA") or None,
        flink_url=env.get("MILLRACE_FLINK_URL") or None,
        store_url=env.get("MILLRACE_STORE_URL") or None,
        lineage=env.get("MILLRACE_LINEAGE") or None,
    )


def _default_cache(env: Mapping[str, str]) -> Path:
    # Asked for only if needed: an account without a home folder has no answer.
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"
