"""The lake tables of one source that the archive appends to, each append with its offsets.

An append and the markers of what it holds are one Delta commit. Commits are made under the table's
lock and only if the markers in the table are those this process knows: a process that was
overtaken by another one stops there, instead of writing everything twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millrace.calendar import is_within
from millrace.durations import DAY_MS
from millrace.errors import EngineUnavailable
from millrace.names import dead_letters_table, duplicates_table, events_table
from millrace.plan import SourcePlan
from millrace.values.arrow import arrow_type
from resources.lake.delta import open_table, rs_path
from resources.lake.lock import locked
from resources.lake.offset_ledger import stored, transactions
from resources.lake.options import storage_options
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

LOCK_WAIT_S = 5.0
"""A backfill may hold a table for minutes; the archive asks again after this long."""

_CONFIGURATION = {
    # A live table gets a commit every few seconds: read few of them, and keep them a week.
    "delta.checkpointInterval": "50",
    "delta.logRetentionDuration": "interval 7 days",
}


class OvertakenError(EngineUnavailable):
    """Another archive has committed to the table meanwhile."""

    code = "overtaken"


@contextmanager
def lake_errors(table: str) -> Iterator[None]:
    """Turn what delta-rs and the file system raise into ``EngineUnavailable``.

    All of it is worth another try: the disk may have room again, the other writer be done. A
    commit that failed may have happened all the same, so whoever tries again reads first.
    """
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise EngineUnavailable(
            f"{type(error).__name__}: {first_line}",
            where=table,
            fix="it is tried again; look for a full disk, or a type that has changed",
        ) from error


class LakeTable:
    """A Delta table partitioned by ``event_date``, appended to by one archive.

    Reads see the newest commit at the time of ``refresh``.
    """

    def __init__(self, settings: Settings, name: str, schema: "Callable[[], pa.Schema]") -> None:
        self.name = name
        self._settings = settings
        self._make_schema = schema
        self._table: DeltaTable | None = None
        self._columns: dict[str, str] = {}

    def refresh(self) -> "DeltaTable":
        """Return the table as it is now, creating it if it never was."""
        with lake_errors(self.name):
            if self._table is None:
                self._table = open_table(self._settings, self.name) or self._create()
                self._columns = _columns(self._table)
            else:
                self._table.update_incremental()
        return self._table

    def _create(self) -> "DeltaTable":
        from deltalake import DeltaTable

        with locked(self._settings, self.name, wait_s=LOCK_WAIT_S):
            return open_table(self._settings, self.name) or DeltaTable.create(
                rs_path(self._settings, self.name),
                self._make_schema(),
                partition_by=["event_date"],
                configuration=_CONFIGURATION,
                storage_options=storage_options(self._settings),
            )

    def append(
        self,
        columns: "Mapping[str, pa.Array]",
        before: Mapping[str, int],
        after: Mapping[str, int],
    ) -> None:
        """Append rows and advance the markers, in one commit; no rows is fine.

        Args:
            columns: arrays by name, equally long, in the types of the table's schema.
            before: the entries this process believes the table to hold.
            after: the entries as of these rows.

        Raises:
            OvertakenError: the table holds other entries.
            TableBusy: somebody else writes to it all the time.
            EngineUnavailable: the lake does not take the commit.
        """
        import pyarrow as pa
        from deltalake import CommitProperties, write_deltalake

        self.refresh()
        schema = self._make_schema()
        rows = pa.table({f.name: columns[f.name] for f in schema}, schema=schema)
        with locked(self._settings, self.name, wait_s=LOCK_WAIT_S):
            table = self.refresh()
            self._check(table, before, after)
            self._check_columns(table)
            commit = CommitProperties(app_transactions=transactions(before, after))
            with lake_errors(self.name):
                if rows.num_rows == 0:
                    table.create_write_transaction(
                        [], "append", table.schema(), ["event_date"], commit_properties=commit
                    )
                    return
                known = {field.name for field in table.schema().fields}
                is_same = known == set(schema.names)
                write_deltalake(
                    table,
                    rows,
                    mode="append",
                    schema_mode=None if is_same else "merge",
                    commit_properties=commit,
                )

    def _check(
        self, table: "DeltaTable", before: Mapping[str, int], after: Mapping[str, int]
    ) -> None:
        found = stored(table, after)
        for entry in after:
            if found.get(entry) != before.get(entry):
                raise OvertakenError(
                    f"{entry} is {found.get(entry)}, not {before.get(entry)}: another archive "
                    "writes to this table",
                    where=self.name,
                    fix="run one archive per lake",
                )

    def _check_columns(self, table: "DeltaTable") -> None:
        """Stop where the table has followed another declaration since it was opened.

        Values would go over into columns that nobody reads, or of a narrower type.
        """
        found = _columns(table)
        if any(found.get(name) != type_ for name, type_ in self._columns.items()):
            raise EngineUnavailable(
                "the table's columns are those of another declaration by now",
                where=self.name,
                fix="it is opened again; nothing was written",
            )


def _columns(table: "DeltaTable") -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema().fields}


@dataclass(frozen=True)
class SourceTables:
    """The lake tables of a source; ``duplicates`` is None if it names no event id."""

    events: LakeTable
    dead_letters: LakeTable
    duplicates: LakeTable | None

    @classmethod
    def of(cls, settings: Settings, source: SourcePlan) -> "SourceTables":
        """Return the tables, unopened."""
        name = source.name
        return cls(
            LakeTable(settings, events_table(name), lambda: events_schema(source)),
            LakeTable(settings, dead_letters_table(name), dead_letters_schema),
            LakeTable(settings, duplicates_table(name), lambda: duplicates_schema(source))
            if source.event_id
            else None,
        )

    def all(self) -> tuple[LakeTable, ...]:
        """Return those there are."""
        return tuple(t for t in (self.events, self.dead_letters, self.duplicates) if t is not None)


def days_of(instants_ms: Sequence[int | None]) -> "pa.Array":
    """Return the UTC days of instants; null where there is none, or none that a date can hold."""
    import pyarrow as pa

    return pa.array([_day_number(ms) for ms in instants_ms], pa.int32()).cast(pa.date32())


def _day_number(ms: int | None) -> int | None:
    return None if ms is None or not is_within(ms) else ms // DAY_MS


def events_schema(source: SourcePlan) -> "pa.Schema":
    """Return the columns of ``events/<source>``."""
    import pyarrow as pa

    return pa.schema(
        [
            *((column.name, arrow_type(column.type)) for column in source.columns),
            ("_event_ms", pa.int64()),
            ("_ingest_ms", pa.int64()),
            ("_partition", pa.int32()),
            ("_offset", pa.int64()),
            ("event_date", pa.date32()),
        ]
    )


def dead_letters_schema() -> "pa.Schema":
    """Return the columns of ``dead_letters/<source>``."""
    import pyarrow as pa

    return pa.schema(
        [
            ("reason", pa.string()),
            ("payload", pa.binary()),
            ("origin", pa.string()),
            ("event_day", pa.date32()),
            ("event_ms", pa.int64()),
            ("arrived_ms", pa.int64()),
            ("partition", pa.int32()),
            ("offset", pa.int64()),
            ("detail", pa.string()),
            ("event_date", pa.date32()),
        ]
    )


def duplicates_schema(source: SourcePlan) -> "pa.Schema":
    """Return the columns of ``duplicates/<source>``, which names an event id."""
    import pyarrow as pa

    event_id = source.column(source.event_id or "")
    return pa.schema(
        [
            ("event_id", arrow_type(event_id.type)),
            ("arrived_ms", pa.int64()),
            ("partition", pa.int32()),
            ("offset", pa.int64()),
            ("event_date", pa.date32()),
        ]
    )
