"""Records of views on disk: one JSON file per view, replaced whole.

A record is the platform's memory of what was asked for and done; it outlives every engine. So it is on
disk before what it says is acted on, and a reader, which needs no lock, never sees half of one.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from millrace.errors import SetupError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class Record(DataclassInstance, Protocol):
        """A frozen dataclass about one view."""

        @property
        def view(self) -> str: ...

        @classmethod
        def from_json(cls, document: Mapping[str, Any]) -> Self: ...


R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class ViewFiles(Generic[R]):
    """The records of one kind in a folder; nothing is made before the first write.

    Attributes:
        record: the class of the records.
        kind: what a record is of, in the plural for the folder of them.
        mend: what to do about one that cannot be read; ``{view}`` is its view.
    """

    folder: Path

    record: ClassVar[type[Any]]
    kind: ClassVar[tuple[str, str]]
    mend: ClassVar[str]

    def read(self, view: str) -> R | None:
        """Return a view's record; None without one.

        Raises:
            SetupError: the file holds something else.
        """
        path = self._path(view)
        try:
            found: R = self.record.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SetupError(
                f"the record of {self.kind[0]} cannot be read: {error}",
                where=str(path),
                fix=self.mend.format(view=view),
            ) from error
        return found

    def read_all(self) -> dict[str, R]:
        """Return all records by view, sorted by name."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        found = {name: self.read(name) for name in names}
        return {name: record for name, record in found.items() if record is not None}

    def write(self, record: R) -> R:
        """Replace a view's record atomically; on disk when this returns.

        Raises:
            SetupError: the folder cannot be written to.
        """
        path = self._path(record.view)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(record), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            self._sync_folder()
        except OSError as error:
            raise self.unwritable(error) from error
        return record

    def _sync_folder(self) -> None:
        # The new name is on disk only once the folder is.
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, view: str) -> None:
        """Forget a view; nothing if it is not known."""
        self._path(view).unlink(missing_ok=True)

    def unwritable(self, error: OSError) -> SetupError:
        """Return the error that says that no record can be kept."""
        return SetupError(
            f"the records of {self.kind[1]} cannot be kept: {error.strerror}",
            where=str(self.folder),
            fix="set MILLRACE_HOME to a folder you can write to",
        )

    def _path(self, view: str) -> Path:
        return self.folder / f"{view}.json"
