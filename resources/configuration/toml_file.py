"""``millrace.toml``: where it lies, what it holds for a profile, and on which line a key stands.

It needs the standard library alone, for the setup reads the cache's place here before anything is
installed.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "millrace.toml"
CONFIG, PROFILE = "MILLRACE_CONFIG", "MILLRACE_PROFILE"
PROFILES = "profile"

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


class UnreadableFile(Exception):
    """The file cannot be read; the message says why, ``line`` where, if it is known."""

    def __init__(self, path: Path, reason: str, line: int | None = None) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {reason}")
        self.path, self.reason, self.line = path, reason, line


@dataclass(frozen=True)
class SettingsFile:
    """A file that was read.

    Attributes:
        path: absolute; relative paths in the file count from its folder.
        base: what holds whatever the profile is.
        profiles: what each profile says instead.
        lines: the line of each key and section, and the section it stands in, by its dotted name.
    """

    path: Path
    base: Mapping[str, Any]
    profiles: Mapping[str, Mapping[str, Any]]
    lines: Mapping[str, tuple[int, str]]

    def place_of(self, key: str, profile: str | None = None) -> str:
        """Return ``file:line [section]`` of a key, or of the narrowest section it lies in."""
        full = f"{PROFILES}.{profile}.{key}" if profile else key
        while full and full not in self.lines:
            full = full.rpartition(".")[0]
        if not full:
            return str(self.path)
        line, section = self.lines[full]
        return f"{self.path}:{line}" + (f" [{section}]" if section else "")


def locate(environ: Mapping[str, str], start: Path) -> Path | None:
    """Return the file that counts, or None.

    Args:
        environ: ``MILLRACE_CONFIG`` names the file; empty, it says that none counts.
        start: the folder in and above which the file is looked for otherwise.
    """
    named = environ.get(CONFIG)
    if named is not None:
        return start / named if named else None
    folders = (start, *start.parents)
    return next((f / FILE_NAME for f in folders if (f / FILE_NAME).is_file()), None)


def read(path: Path) -> SettingsFile:
    """Read a file.

    Raises:
        UnreadableFile: it is absent, may not be read, or is no TOML; or its profiles are no tables.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise UnreadableFile(path, f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableFile(path, "it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        raise UnreadableFile(path, f"no TOML: {error}", line) from error
    lines = dict(_lines(text))
    profiles = document.pop(PROFILES, {})
    if not isinstance(profiles, dict) or not all(isinstance(p, dict) for p in profiles.values()):
        reason = "`profile` holds sections such as [profile.prod.kafka] alone"
        raise UnreadableFile(path, reason, lines.get(PROFILES, (None, ""))[0])
    return SettingsFile(path, document, profiles, lines)


def _lines(text: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """Yield the dotted name of each section and key with its line and section.

    A scan by line, for the parser keeps no places. A line of a text of several lines that looks
    like a key gives one name too many, which nobody asks for.
    """
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _dotted(header[1])
            yield section, (number, section)
        elif key := _KEY.match(line):
            yield f"{section}.{_dotted(key[1])}".lstrip("."), (number, section)


def _dotted(name: str) -> str:
    parts = re.findall(r'"([^"]*)"|\'([^\']*)\'|([\w-]+)', name)
    return ".".join("".join(part) for part in parts)
