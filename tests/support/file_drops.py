"""A folder that raw files come to, at instants behind every real one."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from millrace.plan import SourcePlan
from offline.raw.arrivals import Arrivals
from offline.raw.files import Looks
from resources.declarations import plan_of
from resources.settings import settings_from_env
from tests.support.fake_offline import DECLARATIONS

FIRST, SECOND, THIRD = (date(2031, 3, day) for day in (1, 2, 3))
HEAD = "payment_id,paid_at,customer_id,amount\n"


def at(day: date, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


MORNING = ms(at(THIRD, 9))


class Drop:
    """A folder that files come to, at instants behind every real one."""

    def __init__(self, folder: Path, path: str, form: str) -> None:
        self.folder = folder
        (folder / "raw").mkdir()
        file = folder / "payments.yaml"
        batch = f'batch: {{format: {form}, path: "{folder}/raw/{path}"}}'
        text = DECLARATIONS.replace(
            'batch: {format: parquet, path: "${MILLRACE_DATA}/payments.parquet"}', batch
        )
        file.write_text(text, encoding="utf-8")
        self.source: SourcePlan = plan_of([file]).sources["payments"]

    def csv(self, name: str, rows: int, written: datetime) -> Path:
        body = HEAD + "".join(f"{n},2031-03-01T05:00:00Z,1,2.00\n" for n in range(rows))
        path = self.folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
        return stamped(path, written)

    def parquet(self, name: str, first: date, last: date, written: datetime) -> Path:
        path = self.folder / "raw" / name
        pq.write_table(events(at(first, 5), at(last, 6)), path)
        return stamped(path, written)

    def look(self, known: Looks | None = None) -> Arrivals:
        return Arrivals.look(self.source, settings_from_env({}), known=known)


def events(*instants: datetime) -> pa.Table:
    count = len(instants)
    return pa.table(
        {
            "payment_id": pa.array(range(count), pa.int64()),
            "paid_at": pa.array(instants, pa.timestamp("us", "UTC")),
            "customer_id": pa.array([1] * count, pa.int64()),
            "amount": pa.array([2] * count, pa.int64()),
        }
    )


def stamped(path: Path, written: datetime) -> Path:
    os.utime(path, (written.timestamp(), written.timestamp()))
    return path
