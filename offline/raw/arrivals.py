"""Which days of a source have come, by what a look at its files knows, and which changed since.

Nothing is read but what ``find_raw_files`` looks at: names, sizes, times, statistics. See
``docs/decisions/arrivals.md`` for the rules, and what cannot be known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from millrace.calendar import day_ms, day_number, numbered_day
from millrace.durations import DAY_MS
from millrace.errors import PlatformError
from millrace.plan import SourcePlan
from offline.raw.delta_files import delta_files
from offline.raw.files import Looks, RawFile, RawFiles, days_of_name, find_raw_files
from resources.settings import Settings

FEW_DAYS = 7
"""A file of more days is one of many: which of them a change of it is about is not known."""

SETTLED_MS = 60_000
"""A file that was written within this may still be being written."""

_PATIENCE_MS = 600_000
"""For so long after a day is complete a file of many days is given the time to be written."""

_NS = 1_000_000


@dataclass(frozen=True)
class Arrivals:
    """The files of a source as one look found them.

    Attributes:
        source: the declaration.
        found: the files; none if there is nothing at all.
        place: where they were looked for, as declared.
        problem: why there is nothing; None if there is.
    """

    source: SourcePlan
    found: RawFiles
    place: str
    problem: str | None = None

    @classmethod
    def look(
        cls, source: SourcePlan, settings: Settings, *, known: Looks | None = None
    ) -> "Arrivals":
        """Look at the files of a source with a ``batch``; see ``find_raw_files``."""
        try:
            return cls.of(source, settings, find_raw_files(source, settings, known=known))
        except PlatformError as error:
            return cls(source, RawFiles(()), source.files.path, error.what)

    @classmethod
    def of(cls, source: SourcePlan, settings: Settings, found: RawFiles) -> "Arrivals":
        """Return what these files of a source tell; of a Delta table it is its log that tells."""
        if not found.looked_at and source.files.format == "delta":
            found = RawFiles(delta_files(source, settings) or found.files)
        return cls(source, found, source.files.path)

    @property
    def is_known(self) -> bool:
        """False of what Spark alone can see: its days are taken to be there."""
        return self.problem is not None or self.found.looked_at

    def has(self, day: date, now_ms: int, since_ms: int | None = None) -> bool:
        """Tell whether the data of a day are there.

        Args:
            day: the day.
            now_ms: the present instant: a file that is still being written is not there.
            since_ms: a file that does not tell its days must have come at this instant or later;
                None: once the day was over.
        """
        if not self.is_known:
            return True
        over_ms = day_ms(day) + DAY_MS if since_ms is None else since_ms
        bringing = self._bringing(day, over_ms)
        # What is written to all day long is never at rest.
        is_patient = now_ms < over_ms + self.source.allowed_lateness_ms + _PATIENCE_MS
        return bool(bringing) and all(
            _is_settled(f, now_ms) for f in bringing if is_patient or _is_of_few_days(f)
        )

    def is_known_absent(self, day: date) -> bool:
        """Tell whether no file there is can hold a day, so that building it would find nothing."""
        if not self.found.looked_at:
            return False
        return not self._bringing(day, 0)

    def signature(self, day: date) -> str:
        """Return a digest of the files that hold a day; another one once any of them changed.

        Of names, sizes and times of writing. Empty if there is none. Files of many days, and of
        days that are not known, have no part in it.
        """
        files = self._of_few_days.get(day_number(day), ())
        if not files:
            return ""
        # Not the whole path: a folder that is mounted elsewhere holds the same files.
        told = sorted(
            f"{'/'.join(Path(f.path).parts[-2:])}|{f.size_bytes}|{f.modified_ns}" for f in files
        )
        return blake2b("\n".join(told).encode(), digest_size=8).hexdigest()

    def written_ms(self, day: date) -> int:
        """Return when the newest of the files that ``signature`` is of was written; 0 if none."""
        files = self._of_few_days.get(day_number(day), ())
        return max((f.modified_ns // _NS for f in files), default=0)

    def is_settled(self, day: date, now_ms: int) -> bool:
        """Tell whether none of the files that ``signature`` is of is still being written."""
        files = self._of_few_days.get(day_number(day), ())
        return all(_is_settled(f, now_ms) for f in files)

    def looked_for(self, day: date, now_ms: int) -> str:
        """Say what a day waits for, and what is there instead."""
        if self.problem is not None:
            return f"{day} waits for {self.place}: {self.problem}"
        files = self.found.files
        over_ms = day_ms(day) + DAY_MS
        fresh = self._bringing(day, over_ms)
        if fresh:
            return f"{day} waits until {fresh[0].path} is written to its end"
        if any(f.day is not None for f in files):
            newest = max(f.day for f in files if f.day is not None)
            return (
                f"{day} waits for a file of that name, {self.place}; the newest is of "
                f"{numbered_day(newest)}"
            )
        if any(f.days is None and f.error is None for f in files):
            newest_ms = max(f.changed_ns for f in files) // _NS
            return (
                f"{day} waits for a change of {self.place} once it was over; the last was at "
                f"{datetime.fromtimestamp(newest_ms / 1000, UTC):%Y-%m-%dT%H:%MZ}"
            )
        spans = [f.days for f in files if f.days is not None and f.holds_rows]
        newest_text = (
            f"they end with {numbered_day(max(last for _, last in spans))}" if spans else "none"
        )
        broken = [f for f in files if f.error is not None]
        unread = f"; {broken[0].path} is {broken[0].error}" if broken else ""
        return (
            f"{day} waits for {self.place}: no file holds it by its statistics, {newest_text}"
            f"{unread}"
        )

    def _bringing(self, day: date, over_ms: int) -> list[RawFile]:
        """Return the files that bring a day; those that do not tell which, if they came late enough."""
        number = day_number(day)
        few, many = self._by_what_they_tell
        return [
            *few.get(number, ()),
            *(f for f in many if f.changed_ns // _NS >= over_ms and _may_hold(f, number)),
        ]

    @cached_property
    def _by_what_they_tell(self) -> tuple[dict[int, list[RawFile]], list[RawFile]]:
        """Return files of few days by each of them, and the others; a name tells one day alone."""
        few: dict[int, list[RawFile]] = {}
        many: list[RawFile] = []
        for file in self.found.files:
            if file.day is not None:
                few.setdefault(file.day, []).append(file)
            elif file.error is None and file.days is not None and _is_of_few_days(file):
                for day in range(file.days[0], file.days[1] + 1):
                    few.setdefault(day, []).append(file)
            elif file.error is None:
                many.append(file)
        return few, many

    @cached_property
    def _of_few_days(self) -> dict[int, list[RawFile]]:
        by_day: dict[int, list[RawFile]] = {}
        for file in self.found.files:
            for day in self._told_days(file):
                by_day.setdefault(day, []).append(file)
        return by_day

    def _told_days(self, file: RawFile) -> Iterator[int]:
        """Yield the days that a file is known to hold, if they are few."""
        if file.day is not None:
            yield file.day
            if file.days == days_of_name(file.day, self.source):
                return
        if file.days is None:
            return
        if _is_of_few_days(file):
            first, last = file.days
            yield from (day for day in range(first, last + 1) if day != file.day)


def _may_hold(file: RawFile, day: int) -> bool:
    return file.days is None or file.days[0] <= day <= file.days[1]


def _is_of_few_days(file: RawFile) -> bool:
    if file.day is not None:
        return True
    return file.days is not None and file.days[1] - file.days[0] < FEW_DAYS


def _is_settled(file: RawFile, now_ms: int) -> bool:
    # A clock that is ahead elsewhere must not keep a file from ever being there.
    return not 0 <= now_ms - file.modified_ns // _NS < SETTLED_MS
