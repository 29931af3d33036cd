"""Values that are never shown, and sets of options some of which are such values.

A secret is written down as a reference, ``env:NAME``, ``file:PATH`` or ``vault:PATH#FIELD``, or as
itself. It is read where a client connects and nowhere before, so a file or a vault that changed
counts from the next connection on, and nothing holds it longer than it takes to connect.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from millrace.errors import SetupError

MASK = "********"

_REFERENCE = re.compile(r"(env|file|vault):(.+)", re.DOTALL)
_SECRET_NAME = re.compile(
    r"pass|secret|token|credential|jaas|oauthbearer\.config|(^|[._-])(key|sas)($|[._-])",
    re.IGNORECASE,
)
_PLACE_NAME = re.compile(r"(location|file|path|id)$", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, repr=False)
class Secret:
    """One secret, by reference or as itself.

    Attributes:
        text: ``env:NAME``, ``file:PATH``, ``vault:PATH#FIELD``, or the secret.
        key: the setting it belongs to, for messages.
    """

    text: str
    key: str = field(default="", compare=False)

    @property
    def shown(self) -> str:
        """What may be shown: the reference, or the mask."""
        return self.text if _REFERENCE.fullmatch(self.text) else MASK

    def __repr__(self) -> str:
        return f"Secret({self.shown!r})"

    def reveal(self) -> str:
        """Return the secret as it is now.

        A file's last line end does not count.

        Raises:
            SetupError: the reference leads nowhere. The message has the reference alone.
            EngineUnavailable: the vault does not answer.
        """
        match = _REFERENCE.fullmatch(self.text)
        if match is None:
            return self.text
        kind, place = match.groups()
        if kind == "env":
            return self._of_environment(place)
        if kind == "file":
            return self._of_file(Path(place))
        from resources.configuration.vault import read_secret

        return read_secret(place, key=self.key)

    def _of_environment(self, name: str) -> str:
        value = os.environ.get(name)
        if not value:
            raise SetupError(
                f"{self.text!r} names an environment variable that is not set",
                where=self.key,
                fix=f"export {name}=…, before `millrace up` where a part of the stack needs it",
            )
        return value

    def _of_file(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SetupError(
                f"the secret {self.text!r} cannot be read: {reason}",
                where=self.key,
                fix="name a file that this user can read; a relative path counts from millrace.toml",
            ) from error


Value = str | Secret


@dataclass(frozen=True)
class Options:
    """Named values by the names of the library that takes them, in the order given.

    Equal by content, so a record that holds them can be compared. A value that its name or its
    form makes a secret is a ``Secret``.
    """

    pairs: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, str], key: str) -> "Options":
        """Tell the secrets among some values.

        Args:
            values: by name.
            key: the setting they belong to, for messages.
        """
        return cls(tuple((name, _told_apart(name, text, key)) for name, text in values.items()))

    def reveal(self) -> dict[str, str]:
        """Return every value as it is now, secrets too.

        Raises:
            SetupError: the reference of a secret leads nowhere.
            EngineUnavailable: the vault does not answer.
        """
        return {name: revealed(value) for name, value in self.pairs}

    def shown(self) -> dict[str, str]:
        """Return every value as it may be shown."""
        return {
            name: value.shown if isinstance(value, Secret) else masked_url(value)
            for name, value in self.pairs
        }

    def secrets(self) -> list[str]:
        """Return the secrets among the values as they are now, for ``redacted``."""
        return [value.reveal() for _, value in self.pairs if isinstance(value, Secret)]

    def __bool__(self) -> bool:
        return bool(self.pairs)


NO_OPTIONS = Options()


def _told_apart(name: str, text: str, key: str) -> Value:
    is_secret = is_reference(text) or is_secret_name(name)
    return Secret(text, f"{key}.{name}") if is_secret else text


def revealed(value: Value) -> str:
    """Return a value as it is used."""
    return value.reveal() if isinstance(value, Secret) else value


def is_reference(text: str) -> bool:
    """Whether the text says where a secret lies."""
    return _REFERENCE.fullmatch(text) is not None


def is_secret_name(name: str) -> bool:
    """Whether an option of this name holds a secret; a place where one lies is none.

    >>> [is_secret_name(n) for n in ("sasl.password", "ssl.key.pem", "aws_secret_access_key")]
    [True, True, True]
    >>> [is_secret_name(n) for n in ("ssl.key.location", "sasl.mechanism", "aws_region")]
    [False, False, False]
    """
    return bool(_SECRET_NAME.search(name)) and not _PLACE_NAME.search(name)


def masked_url(text: str) -> str:
    """Return a text whose URLs show no user, password or token.

    >>> masked_url("redis://me:secret@store:6379/0"), masked_url("sc://spark:15002/;token=abc")
    ('redis://********@store:6379/0', 'sc://spark:15002/;token=********')
    """
    without_user = _USERINFO.sub(f"{MASK}@", text)
    return re.sub(r"(?i)((?:token|password|secret)=)[^;&\s]+", rf"\1{MASK}", without_user)


def redacted(text: str, secrets: list[str]) -> str:
    """Return a text of somebody else's with the secrets in it masked."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
