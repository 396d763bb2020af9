"""SQLite as the archive: one file, one writer at a time, one statement and one row for each batch.

Python's `sqlite3` takes the GIL again for every row bound and every row fetched, so a flush of
5,000 rows by `executemany` waits 5,000 times behind a busy event loop (9,900 rows/s beside one).
Here a batch goes in as two values, the columns as JSON and the bodies as one blob that the
statement cuts up, and a page comes out as one row of three values. Cutting a blob also keeps
bodies byte for byte, whatever they hold: SQLite's JSON functions would decode and re-encode them.

Durability rests on `synchronous=FULL` with a write-ahead log, set on every connection and read
back. Writers take the lock at BEGIN, so a transaction never fails half-way for having read first.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
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

CHECKPOINT_PAGES = 4_000
"""Write-ahead log pages (16 MiB) between checkpoints: each moves a page only once."""

STATEMENT_ROWS_MAX = 1_000
"""Rows of one statement. Its parameters are built under the interpreter's lock, 0.6 µs a row, while the
event loop waits; SQLite's own work, ten times that, is done without it. After it the flush waits for the
lock again, up to 5 ms beside a busy loop: at 250 rows that was most of its time, and at 35,000 messages a
second the backlog grew to 5 s, where it now stays below half a second."""

VERSION_MIN = (3, 38, 0)
"""The first with `->>`, and with STRICT tables."""

_COLUMNS = "workspace, session, seq, id, sender, client_id, digest, at_ms, body"

_BATCH = """
    SELECT value ->> 0 AS workspace, value ->> 1 AS session, value ->> 2 AS seq, value ->> 3 AS id,
           value ->> 4 AS sender, value ->> 5 AS client_id, value ->> 6 AS digest,
           value ->> 7 AS at_ms,
           CAST(substr(:bodies, value ->> 8, value ->> 9) AS TEXT) AS body
    FROM json_each(:rows)
    WHERE true
"""

_INSERT = f"INSERT INTO messages ({_COLUMNS}) {_BATCH}"

_MERGE = f"{_INSERT} ON CONFLICT (workspace, session, seq) DO NOTHING"

_FIND_CONFLICT = f"""
    SELECT b.workspace, b.session, b.seq
    FROM ({_BATCH}) AS b
    JOIN messages AS m ON m.workspace = b.workspace AND m.session = b.session AND m.seq = b.seq
    WHERE m.id IS NOT b.id OR m.sender IS NOT b.sender OR m.client_id IS NOT b.client_id
       OR m.digest IS NOT b.digest OR m.at_ms IS NOT b.at_ms OR m.body IS NOT b.body
    LIMIT 1
"""  # noqa: S608 - constants

_row = attrgetter("workspace", "session", "seq", "id", "sender", "client_id", "digest", "at_ms")


class SqliteDialect:
    """An SQLite file, opened."""

    hint = (
        "check that --archive or --data names an SQLite file in a directory that is there, that this user "
        "may write both, and that no other program holds it"
    )
    rows_sql = "json_each(:rows)"
    elements_sql = "json_each(s.members)"
    recent_sql = "json_group_array(json_array(m.sender, m.client_id, m.seq, m.id, m.digest))"
    reads_sql = "json_group_object(r.user_id, r.seq)"
    page_sql = "group_concat(seq), group_concat(length(body)), CAST(group_concat(body, '') AS BLOB)"
    bytes_sql = "CAST(body AS BLOB)"

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
        for start in range(0, len(records), STATEMENT_ROWS_MAX):
            piece = records[start : start + STATEMENT_ROWS_MAX]
            connection.exec_driver_sql(_INSERT, _parameters(piece))

    def merge_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert the rows that are not there yet; raise ArchiveConflictError if one differs."""
        parameters = _parameters(records)
        connection.exec_driver_sql(_MERGE, parameters)
        other = connection.exec_driver_sql(_FIND_CONFLICT, parameters).first()
        if other is not None:
            raise ArchiveConflictError("messages", "/".join(map(str, other)))

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


def _parameters(records: Sequence[MessageRecord]) -> dict[str, Any]:
    bodies = [record.body for record in records]
    lengths = [len(body) for body in bodies]
    # substr counts from 1.
    offsets = accumulate(lengths, initial=1)
    rows = [
        (*_row(record), offset, length)
        for record, offset, length in zip(records, offsets, lengths, strict=False)
    ]
    return {"bodies": b"".join(bodies), "rows": msgspec.json.encode(rows).decode()}
