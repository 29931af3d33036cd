"""Dead dead letters of raw files: replaced with the days they belong to, or with the files they came from.

A row without an event time belongs to no day. It is known by its file alone, so it is replaced when
that file is read again.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sqlglot import exp

from millrace.calendar import EPOCH
from millrace.compile.dialects import SPARK
from millrace.names import dead_letters_table
from offline.raw.columns import DETAIL, FILE, PAYLOAD
from offline.raw.files import RawFile
from offline.tables.archived_days import has_column, rows_with
from offline.tables.classification import VERDICT
from resources.lake.delta import open_dataset, open_table, rs_path, table_path
from resources.lake.lock import locked
from resources.lake.writing import Slices
from resources.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame

UNREADABLE = "unreadable"
"""Reason of the dead letter of a file none of whose rows can be read."""

_MAGIC = "*?[{"


@dataclass(frozen=True)
class DeadLetters:
    """The table of the refused rows and records of a source; of raw files are those without an offset.

    Attributes:
        settings: where the lake is.
        source: name of the source.
    """

    settings: Settings
    source: str

    @property
    def name(self) -> str:
        """The table's name under the lake."""
        return dead_letters_table(self.source)

    def replace(self, wrong: "DataFrame", slices: Slices, files: Iterable[RawFile]) -> None:
        """Replace the dead letters of some days, and those without a day of some files.

        Where some hours of a day are built, those dead letters are replaced whose ``event_ms`` lies in them.

        Args:
            wrong: judged rows that were not accepted; it is read twice, so keep it.
            slices: the days that were built, or parts of them.
            files: what was read.
        """
        from pyspark.sql import functions as F

        dead = wrong.filter(F.col(VERDICT) == "dead")
        undated = dead.filter(F.col("event_date").isNull()).select(FILE).distinct().collect()
        origins = {row[FILE] for row in undated} | self._undated_origins(files)
        arrival = F.coalesce(F.to_date(F.timestamp_millis(F.col("_ingest_ms"))), F.lit(EPOCH))
        dead_letters = dead.select(
            F.col("_reason").alias("reason"),
            F.col(PAYLOAD).alias("payload"),
            F.col(FILE).alias("origin"),
            F.col("event_date").alias("event_day"),
            F.col("_event_ms").alias("event_ms"),
            F.col("_ingest_ms").alias("arrived_ms"),
            F.lit(None).cast("int").alias("partition"),
            F.lit(None).cast("bigint").alias("offset"),
            F.col(DETAIL).alias("detail"),
            arrival.alias("event_date"),
        )
        if slices.bounds:
            self._add_event_ms()
        replaced = slices.predicate("event_ms", "event_day")
        if origins:
            named = exp.column("origin").isin(*sorted(origins)).sql(SPARK)
            replaced = f"({replaced}) OR (event_day IS NULL AND {named})"
        if has_column(self.settings, self.name, "offset"):
            replaced = f"({replaced}) AND `offset` IS NULL"
        dead_letters.coalesce(1).write.format("delta").mode("overwrite").partitionBy(
            "event_date"
        ).option("replaceWhere", replaced).option("mergeSchema", "true").save(
            table_path(self.settings, self.name)
        )

    def replace_unreadable(self, unreadable: Iterable[RawFile], read: Iterable[RawFile]) -> None:
        """Have one dead letter ``unreadable`` of each file that cannot be read, and of no other.

        Its origin is the file, its detail what is wrong, its payload empty; it belongs to no day. That
        of a file which was read now, or is gone, is taken away; nothing is written if nothing changed.
        """
        import pyarrow as pa
        from deltalake import write_deltalake

        now = {file.path: str(file.error) for file in unreadable}
        with locked(self.settings, self.name):
            standing = self.unreadable()
            healed = {file.path for file in read}
            gone = {p for p in standing if p not in now and (p in healed or not os.path.lexists(p))}
            changed = {path: why for path, why in now.items() if standing.get(path) != why}
            outdated = gone | (changed.keys() & standing.keys())
            table = self._open()
            if table is not None and outdated:
                named = exp.column("origin").isin(*sorted(outdated))
                table.delete((exp.column("reason").eq(UNREADABLE) & named).sql())
            if not changed:
                return
            count, today = len(changed), datetime.now(tz=UTC)
            columns = {
                "reason": pa.array([UNREADABLE] * count, pa.string()),
                "payload": pa.array([b""] * count, pa.binary()),
                "origin": pa.array(list(changed), pa.string()),
                "event_day": pa.nulls(count, pa.date32()),
                "event_ms": pa.nulls(count, pa.int64()),
                "arrived_ms": pa.array([int(today.timestamp() * 1000)] * count, pa.int64()),
                "partition": pa.nulls(count, pa.int32()),
                "offset": pa.nulls(count, pa.int64()),
                "detail": pa.array(list(changed.values()), pa.string()),
                "event_date": pa.array([today.date()] * count, pa.date32()),
            }
            write_deltalake(
                rs_path(self.settings, self.name),
                pa.table(columns),
                mode="append",
                partition_by=["event_date"],
                schema_mode="merge",
            )

    def unreadable(self) -> dict[str, str]:
        """Return the files of which there is a dead letter ``unreadable``, with what was wrong."""
        import pyarrow.compute as pc

        opened = self._open()
        if opened is None:
            return {}
        rows = open_dataset(opened).to_table(
            columns=["origin", "detail"], filter=pc.field("reason") == UNREADABLE
        )
        return dict(zip(rows["origin"].to_pylist(), rows["detail"].to_pylist(), strict=True))

    def of_rows(self) -> int:
        """Return how many came from single rows of files."""
        table = self._open()
        if table is None:
            return 0
        of_records = sum(rows_with(table, "offset").values())
        return int(table.count()) - of_records - len(self.unreadable())

    def by_day(self, days: Iterable[date]) -> dict[date, dict[str, int]]:
        """Return how many dead letters of files belong to some days, by reason; days without are absent."""
        import pyarrow.compute as pc

        table = self._open()
        if table is None:
            return {}
        rows = open_dataset(table)
        wanted = pc.field("event_day").isin(list(days))
        if "offset" in rows.schema.names:
            wanted &= pc.field("offset").is_null()
        found = rows.to_table(columns=["event_day", "reason"], filter=wanted)
        counts: dict[date, dict[str, int]] = {}
        grouped = found.group_by(["event_day", "reason"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            counts.setdefault(row["event_day"], {})[row["reason"]] = row["count_all"]
        return counts

    def _add_event_ms(self) -> None:
        """Give a table of before there were hours the column that dead letters of an hour are found by."""
        from deltalake import Field
        from deltalake.schema import PrimitiveType

        opened = self._open()
        if opened is not None and not has_column(self.settings, self.name, "event_ms"):
            opened.alter.add_columns([Field("event_ms", PrimitiveType("long"))])

    def _undated_origins(self, files: Iterable[RawFile]) -> set[str]:
        """Return the files of which there are dead letters without a day, of those that were read."""
        import pyarrow.dataset as ds

        table = self._open()
        if table is None:
            return set()
        rows = open_dataset(table)
        of_files = ds.field("event_day").is_null()
        if "offset" in rows.schema.names:
            of_files &= ds.field("offset").is_null()
        origins = set(
            rows.to_table(columns=["origin"], filter=of_files)["origin"].unique().to_pylist()
        )
        roots = {_place(_without_pattern(file.path)) for file in files}
        return {one for one in origins if _is_within(_place(one), roots)}

    def _open(self) -> "DeltaTable | None":
        return open_table(self.settings, self.name)


def _without_pattern(path: str) -> str:
    """Return the folder that a pattern behind a URL searches; Spark alone knows what it finds."""
    magic = [path.find(c) for c in _MAGIC if c in path]
    return path[: min(magic)].rpartition("/")[0] if magic and "://" in path else path


def _place(path: str) -> str:
    """Return one form of a path, whether Spark writes it, as an address, or a declaration does.

    >>> _place("file:///a/b%20c.json"), _place("/a/b c.json"), _place("s3a://bucket/a%20b/")
    ('/a/b c.json', '/a/b c.json', 's3a://bucket/a b')
    """
    if path.startswith("/"):
        return path
    address = unquote(path).rstrip("/")
    return (
        "/" + address.removeprefix("file:").lstrip("/") if address.startswith("file:") else address
    )


def _is_within(place: str, roots: set[str]) -> bool:
    """Whether a file is one of those that were read, or lies in a folder or table that was."""
    return place in roots or any(place.startswith(f"{one}/") for one in roots)
