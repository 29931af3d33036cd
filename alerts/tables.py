"""The alerts' tables, and the engine that holds them: SQLite on one machine, else Postgres.

Dagster's key-value store would do for a cursor, but it has no transactions: here the watcher's
position, the conditions and the outbox change together or not at all.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.event import listen

from resources.configuration.secret import revealed
from resources.settings import Postgres, Settings

SQLITE_FILE = "alerts/alerts.db"
"""Below ``MILLRACE_HOME``."""

_BUSY_TIMEOUT_S = 30
_SCHEMA_LOCK = 6_017_405_001
"""Any number that no other program takes as an advisory lock in the same database."""

metadata = sa.MetaData()

watcher = sa.Table(
    "millrace_alert_watcher",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("position_us", sa.BigInteger, nullable=False),
    sa.Column("ticked_ms", sa.BigInteger, nullable=False),
    sa.Column("heartbeat", sa.BigInteger, nullable=False),
)
"""One row: up to which run update all was read, when the watcher last looked, its last heartbeat."""

runs = sa.Table(
    "millrace_alert_runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("updated_us", sa.BigInteger, primary_key=True),
)
"""Runs that were read and lie within the overlap."""

conditions = sa.Table(
    "millrace_alert_conditions",
    metadata,
    sa.Column("fingerprint", sa.Text, primary_key=True),
    sa.Column("is_open", sa.Boolean, nullable=False, index=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)

outbox = sa.Table(
    "millrace_alert_outbox",
    metadata,
    # SQLite numbers rows by itself only in a column of this very type.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("sink", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("batch", sa.Text),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("queued_ms", sa.BigInteger, nullable=False),
    sa.Column("done_ms", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("key", "sink"),
    sa.Index("millrace_alert_outbox_waiting", "sink", "state", "seq"),
    sqlite_autoincrement=True,
)
"""One row per transition and sink; ``state`` is pending, sent, parked or dropped."""

sinks = sa.Table(
    "millrace_alert_sinks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("not_before_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("down_since_ms", sa.BigInteger),
    sa.Column("sent_ms", sa.BigInteger),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("lease_owner", sa.Text, nullable=False, default=""),
    sa.Column("lease_until_ms", sa.BigInteger, nullable=False, default=0),
)


def open_engine(settings: Settings) -> sa.Engine:
    """Open the database and make its tables if they are not there.

    Postgres if the settings name one, else ``<home>/alerts/alerts.db``. Several processes may open
    it at once.

    Raises:
        SetupError: the password cannot be read.
    """
    engine = _sqlite(settings) if settings.postgres is None else _postgres(settings.postgres)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        metadata.create_all(connection)
    return engine


def _postgres(place: Postgres) -> sa.Engine:
    url = sa.URL.create(
        "postgresql+psycopg2",
        username=None if place.user is None else revealed(place.user),
        password=None if place.password is None else place.password.reveal(),
        host=place.host,
        port=place.port,
        database=place.db,
    )
    return sa.create_engine(url, pool_pre_ping=True)


def _sqlite(settings: Settings) -> sa.Engine:
    path = settings.home / SQLITE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
    listen(engine, "connect", _prepare)
    listen(engine, "begin", _lock_at_once)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    # The driver would begin transactions late, at the first write; see below.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")


def _lock_at_once(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later fails at once, without waiting, if another
    # one wrote meanwhile; one that takes the lock first waits for it.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
