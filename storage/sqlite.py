"""SQLite as the archive: one file, one writer at a time.

Rows are bound one by one, and Python's `sqlite3` takes the GIL again for each: beside a busy event loop
that waits for it 5,000 times a flush. So a server flushes in a process of its own (`storage.flushprocess`), and a
page comes out as one row of three values.

Bodies are bound as bytes and cast to text, which changes no byte of them.

Durability rests on `synchronous=FULL` with a write-ahead log, set on every connection and read
back. Writers take the lock at BEGIN, so a transaction never fails half-way for having read first.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from storage.dialect import Fault
from storage.errors import ArchiveConflictError, ArchiveSettingsError, ArchiveUnavailableError
from storage.record import MessageRecord

BUSY_SECONDS = 5.0
"""How long a writer waits for another process's transaction before the call fails."""

OPEN_BUSY_SECONDS = 2.5
"""The same while the file is being opened: a start that cannot be says so within five seconds, all in all."""

READERS_MAX = 8
"""Connections that read at once, above the number of threads that the runtime reads with."""

CHECKPOINT_PAGES = 16_000
"""Write-ahead log pages (64 MiB) between checkpoints: each moves a page only once.

Of rows that each belong to another one of 100,000 sessions 22,500 a second were written, with 16 MiB 17,400."""

VERSION_MIN = (3, 38, 0)
"""The first with `->>`, and with STRICT tables."""

_INSERT = """
    INSERT INTO messages (workspace, session, seq, id, sender, client_id, digest, at_ms, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT))
"""

_MERGE = f"{_INSERT} ON CONFLICT (workspace, session, seq) DO NOTHING"

_FIND_CONFLICT = """
    SELECT workspace, session, seq FROM messages
    WHERE workspace = ? AND session = ? AND seq = ?
      AND (id IS NOT ? OR sender IS NOT ? OR client_id IS NOT ? OR digest IS NOT ? OR at_ms IS NOT ?
           OR body IS NOT CAST(? AS TEXT))
"""

# In the order of the parameters of all three.
_row = attrgetter(
    "workspace", "session", "seq", "id", "sender", "client_id", "digest", "at_ms", "body"
)


class SqliteDialect:
    """An SQLite file, opened."""

    replicates = False

    hint = (
        "check that --archive or --data names an SQLite file in a directory that is there, that this user "
        "may write both, and that no other program holds it"
    )
    rows_sql = "json_each(:rows)"
    elements_sql = "json_each(s.members)"
    recent_sql = "json_group_array(json_array(m.sender, m.client_id, m.seq, m.id, m.digest))"
    reads_sql = "json_group_object(r.user_id, r.seq)"
    dispatches_sql = "json_group_array(json_array(d.dispatch, d.body))"
    page_sql = "group_concat(seq), group_concat(length(body)), CAST(group_concat(body, '') AS BLOB)"
    joined_slots_sql = "group_concat(slot)"
    joined_sessions_sql = "group_concat(workspace || ' ' || session, char(10))"
    bytes_sql = "CAST(body AS BLOB)"
    notify_sql = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._busy_seconds = OPEN_BUSY_SECONDS
        self.writer = self._engine(pool_size=1, begin="BEGIN IMMEDIATE")
        self.reader = self._engine(pool_size=READERS_MAX, begin=None)

    def is_there(self) -> bool:
        """Return whether there is a file."""
        try:
            return self._path.exists()
        except OSError as error:
            raise ArchiveUnavailableError(f"{self._path}: {error.strerror}", self.hint) from error

    def create(self) -> None:
        """Make the file if there is none, readable by its owner alone."""
        try:
            # SQLite gives the files beside it the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ArchiveUnavailableError(f"{self._path}: {error.strerror}", self.hint) from error

    def check(self) -> None:
        """Check SQLite's version, and the settings that durability rests on.

        From here on a call waits for another process's transaction as long as any writer does.
        """
        if sqlite3.sqlite_version_info < VERSION_MIN:
            wanted = ".".join(map(str, VERSION_MIN))
            raise ArchiveSettingsError("sqlite_version", sqlite3.sqlite_version, wanted)
        with self.writer.connect() as connection:
            for setting, wanted in (("journal_mode", "wal"), ("synchronous", "2")):
                found = str(connection.exec_driver_sql(f"PRAGMA {setting}").scalar_one())
                if found != wanted:
                    raise ArchiveSettingsError(setting, found, wanted)
            self._busy_seconds = BUSY_SECONDS
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def lock_migrations(self, connection: Connection) -> None:
        """Nothing to do: BEGIN IMMEDIATE has the lock."""

    def allow_long(self, connection: Connection) -> None:
        """Nothing to do: no statement has a time limit."""

    def insert_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert rows that are all new, or fail."""
        connection.exec_driver_sql(_INSERT, [_row(record) for record in records])

    def merge_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert the rows that are not there yet; raise ArchiveConflictError if one differs."""
        rows = [_row(record) for record in records]
        connection.exec_driver_sql(_MERGE, rows)
        for row in rows:
            other = connection.exec_driver_sql(_FIND_CONFLICT, row).first()
            if other is not None:
                raise ArchiveConflictError("messages", "/".join(map(str, other)))

    def open_batch_writer(self, node_id: str, epoch: int) -> NoReturn:  # noqa: ARG002
        """Refuse: a second copy on the same machine is none.

        Raises:
            ArchiveSettingsError: always.
        """
        raise ArchiveSettingsError("database", "SQLite", "PostgreSQL")

    def open_notices(self) -> None:
        """Do nothing: whoever wants to know must ask."""

    def name_connections(self, node_id: str) -> None:
        """Nothing to do: a file has no connections that others see."""

    def end_connections(self, connection: Connection, node_id: str, epoch: int) -> None:
        """Nothing to do: the locks of a process end with it."""

    def fault(self, error: Exception) -> Fault:
        """Say what an error asks for."""
        if isinstance(error, UnicodeError):
            return Fault.REFUSED
        original = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(original, sqlite3.Error):
            return Fault.UNAVAILABLE
        name = getattr(original, "sqlite_errorname", "")
        if name in {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"}:
            return Fault.DUPLICATE
        if name.startswith("SQLITE_CONSTRAINT") or name in {"SQLITE_TOOBIG", "SQLITE_MISMATCH"}:
            return Fault.REFUSED
        return Fault.UNAVAILABLE

    def reason(self, error: Exception) -> str:
        """Describe an error on one line."""
        if isinstance(error, PoolTimeoutError):
            return f"{self._path}: no connection was free in time"
        original = error.orig if isinstance(error, DBAPIError) else error
        return f"{self._path}: {original}"

    def close(self) -> None:
        """Close every connection; the last one folds the write-ahead log into the file."""
        self.reader.dispose()
        self.writer.dispose()

    def _engine(self, *, pool_size: int, begin: str | None) -> Engine:
        # The pool of the writer has one connection: this process's writers queue there, and never
        # poll for SQLite's lock against each other.
        engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=BUSY_SECONDS,
        )
        if begin is not None:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _connect(self) -> sqlite3.Connection:
        # Without an isolation level the driver begins nothing by itself.
        connection = sqlite3.connect(
            self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            self._write_ahead(connection)
        except BaseException:
            connection.close()
            raise
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return connection

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Turn the write-ahead log on, which only a new file does not have yet.

        SQLite's own timeout does not hold for this switch: of several processes that make it at once, all
        but one are told at once that the file is locked.
        """
        give_up_at = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= give_up_at:
                    raise
                # This does wait, for whoever writes now.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            else:
                return


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
