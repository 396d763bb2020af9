"""PostgreSQL as the archive: batches by COPY, and a deadline on every answer.

A batch is COPYed as one text straight into `messages`. Only if that meets a row that stands
already is it COPYed aside, merged and compared. The text is built with a few operations for each
row and one for the whole batch: 0.3 µs a row with the GIL held.

Durability rests on `synchronous_commit=on`, set on every connection and read back once. The
isolation level is READ COMMITTED: a flush that waits for another's row lock must see what that one
left.

A server that is frozen, or behind a network that drops packets, answers nothing for ever. So each
wait for an answer has a deadline, after which the connection is closed and the outcome is unknown;
and the server ends a transaction whose client went silent, so that its locks do not outlive it.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.copy import LibpqWriter
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from storage.batches import ADD, Batch, checksum
from storage.dialect import Fault
from storage.errors import (
    ArchiveConflictError,
    ArchiveSettingsError,
    ArchiveUnavailableError,
    FencedError,
)
from storage.notices import NOTIFY, PostgresNotices
from storage.record import MessageRecord

T = TypeVar("T")

CONNECT_SECONDS = 3
"""To one host. With `PROBE_SECONDS` it makes five: how long a start may leave its user waiting."""

PROBE_SECONDS = 2.0
"""For the first answers at start, from a server that accepted the connection."""

ANSWER_SECONDS = 40.0
"""For any later answer; above the server's own timeouts, which end a statement in order."""

BATCH_ANSWER_SECONDS = 10.0
"""For a batch: half a megabyte at most, as a rule. What comes later than that is asked for again."""

POOL_SECONDS = 5.0
"""How long a call waits for one of the pool's connections."""

READERS_MAX = 8
WRITERS_MAX = 4
"""A node flushes with one; the others serve keys and starts."""

SERVER_SETTINGS = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read\\ committed",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    # Below what a lock is waited for: a node that falls silent in a change of the ring holds up all others.
    "idle_in_transaction_session_timeout": "5s",
}

CONNECTION_PARAMETERS = {
    "client_encoding": "utf8",
    "connect_timeout": str(CONNECT_SECONDS),
    "application_name": "ringlog",
    # A peer that is gone is noticed within half a minute, whether we send or wait.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}

MIGRATION_LOCK = 0x72696E676C6F67
"""The advisory lock's key: "ringlog"."""

COPY_FLUSH_BYTES = 64 * 2**20
"""More than any batch: libpq sends what the socket takes, and the only wait is for the end."""

_COLUMNS = "workspace, session, seq, id, sender, client_id, digest, at_ms, body"

_NULL = "\x01"
"""Stands for NULL in COPY text: one character that occurs in no id, and needs no backslash."""

_COPY = f"COPY messages ({_COLUMNS}) FROM STDIN WITH (NULL E'\\x01')"

_COPY_ASIDE = f"COPY staged_messages ({_COLUMNS}) FROM STDIN WITH (NULL E'\\x01')"

_END_CONNECTIONS = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = :name AND usename = current_user AND pid <> pg_backend_pid()
      AND datname = current_database()
      AND EXISTS (SELECT 1 FROM owner_epochs
                  WHERE node_id = :node_id AND epoch = :epoch AND sealed_epoch < :epoch)
""")

_STAGE = """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_messages
    (LIKE messages) ON COMMIT DROP
"""

_MERGE = f"""
    INSERT INTO messages ({_COLUMNS}) SELECT {_COLUMNS} FROM staged_messages
    ON CONFLICT (workspace, session, seq) DO NOTHING
"""  # noqa: S608 - constants

_FIND_CONFLICT = """
    SELECT b.workspace, b.session, b.seq FROM staged_messages AS b
    JOIN messages AS m USING (workspace, session, seq)
    WHERE (m.id, m.sender, m.client_id, m.digest, m.at_ms, m.body)
       IS DISTINCT FROM (b.id, b.sender, b.client_id, b.digest, b.at_ms, b.body)
    LIMIT 1
"""


class AnsweringConnection(psycopg.Connection[Any]):
    """A connection that closes itself when an answer takes longer than `answer_seconds`."""

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for an answer, or raise OperationalError."""
        seconds = self.answer_seconds if timeout is None else timeout
        try:
            return super().wait(gen, interval, seconds)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - all that wait() documents to raise
            self.pgconn.finish()
            message = f"no answer within {seconds:g} seconds"
            raise psycopg.OperationalError(message) from None


class PostgresBatchWriter:
    """Adds one owner's batches, over a connection of its own: one statement and one answer for each."""

    def __init__(self, dialect: "PostgresDialect", node_id: str, epoch: int) -> None:
        self._dialect = dialect
        self._owner = (node_id, epoch)
        self._connection: AnsweringConnection | None = None

    def add(self, batch: Batch) -> None:
        """Add a batch; see `BatchWriter`."""
        node_id, epoch = self._owner
        row = (batch.first_lsn, batch.lsn_end, checksum(batch.payload), batch.payload)
        try:
            if self._connection is None:
                self._connection = self._dialect.connect()
                self._connection.autocommit = True
                self._connection.answer_seconds = BATCH_ANSWER_SECONDS
            cursor = self._connection.execute(ADD, (*row, node_id, epoch), prepare=True)
        except psycopg.Error as error:
            # Whatever it is: a new connection has none of it.
            self.close()
            raise ArchiveUnavailableError(self._dialect.reason(error)) from error
        if cursor.rowcount != 1:
            raise FencedError(node_id, epoch)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresDialect:
    """A PostgreSQL database, opened."""

    replicates = True

    hint = ArchiveUnavailableError.hint
    rows_sql = "json_array_elements(CAST(:rows AS json))"
    elements_sql = "json_array_elements_text(CAST(s.members AS json))"
    recent_sql = (
        "CAST(json_agg(json_build_array(m.sender, m.client_id, m.seq, m.id, m.digest)) AS text)"
    )
    reads_sql = "CAST(json_object_agg(r.user_id, r.seq) AS text)"
    dispatches_sql = "CAST(json_agg(json_build_array(d.dispatch, d.body)) AS text)"
    page_sql = (
        "string_agg(CAST(seq AS text), ',' ORDER BY seq),"
        " string_agg(CAST(length(body) AS text), ',' ORDER BY seq),"
        " string_agg(body, CAST('' AS bytea) ORDER BY seq)"
    )
    joined_slots_sql = "string_agg(CAST(slot AS text), ',')"
    joined_sessions_sql = "string_agg(workspace || ' ' || session, chr(10))"
    bytes_sql = "convert_to(body, 'UTF8')"
    notify_sql = NOTIFY

    def __init__(self, url: str) -> None:
        self._parameters = _connection_parameters(url)
        self.writer = self._engine(WRITERS_MAX)
        event.listen(self.writer, "checkout", self._rename)
        self.reader: Engine = self._engine(READERS_MAX).execution_options(
            isolation_level="AUTOCOMMIT"
        )

    def is_there(self) -> bool:
        """Return whether there is a server: asking tells."""
        return True

    def create(self) -> None:
        """Nothing: the database is the operator's to create."""

    def check(self) -> None:
        """Check that the server answers, can be written to and commits durably."""
        try:
            with self.connect() as connection:
                connection.answer_seconds = PROBE_SECONDS
                row = connection.execute(
                    "SELECT current_setting('synchronous_commit'), pg_is_in_recovery(),"
                    " current_setting('server_encoding')"
                ).fetchone()
        except psycopg.Error as error:
            raise ArchiveUnavailableError(self.reason(error)) from error
        assert row is not None
        synchronous_commit, is_standby, encoding = row
        if synchronous_commit != "on":
            raise ArchiveSettingsError("synchronous_commit", synchronous_commit, "on")
        if encoding != "UTF8":
            # Every message that it cannot represent would have to be set aside.
            raise ArchiveSettingsError("server_encoding", encoding, "UTF8")
        if is_standby:
            raise ArchiveUnavailableError(f"{self._name()}: a standby, it cannot be written to")

    def lock_migrations(self, connection: Connection) -> None:
        """Keep other processes out until the transaction ends."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})

    def allow_long(self, connection: Connection) -> None:
        """Let the rest of the transaction take as long as it takes."""
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    def insert_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert rows that are all new, or fail."""
        _copy(connection, _COPY, encode_messages(records))

    def merge_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert the rows that are not there yet; raise ArchiveConflictError if one differs."""
        connection.exec_driver_sql(_STAGE)
        connection.exec_driver_sql("TRUNCATE staged_messages")
        _copy(connection, _COPY_ASIDE, encode_messages(records))
        connection.exec_driver_sql(_MERGE)
        other = connection.exec_driver_sql(_FIND_CONFLICT).first()
        if other is not None:
            raise ArchiveConflictError("messages", "/".join(map(str, other)))

    def fault(self, error: Exception) -> Fault:
        """Say what an error asks for."""
        if isinstance(error, UnicodeError):
            return Fault.REFUSED
        original = _original(error)
        if isinstance(original, psycopg.errors.UniqueViolation):
            return Fault.DUPLICATE
        code = getattr(original, "sqlstate", None) or ""
        # Data exceptions, constraints, limits of a row or an index entry, a trigger's refusal.
        if code[:2] in {"22", "23", "54"} or code == "P0001":
            return Fault.REFUSED
        return Fault.UNAVAILABLE

    def reason(self, error: Exception) -> str:
        """Describe an error on one line, without the DETAIL, which would quote the row."""
        if isinstance(error, PoolTimeoutError):
            return f"{self._name()}: no connection was free in time"
        original = _original(error)
        primary = original.diag.message_primary if isinstance(original, psycopg.Error) else None
        return f"{self._name()}: {primary or ' '.join(str(original).split())}"

    def close(self) -> None:
        """Close every connection."""
        self.reader.dispose()
        self.writer.dispose()

    def _rename(self, connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
        """Name a connection that was opened before its name was known."""
        name = self._parameters["application_name"]
        if record.info.get("name") != name:
            connection.execute("SELECT set_config('application_name', %s, false)", (name,))
            connection.commit()
            record.info["name"] = name

    def _name(self) -> str:
        """Return which server it is: without a password."""
        host = self._parameters.get("host") or "local socket"
        return f"{host}:{self._parameters.get('port') or 5432}"

    def _engine(self, pool_size: int) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=self.connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
        )

    def connect(self) -> AnsweringConnection:
        """Open a connection of its own."""
        return AnsweringConnection.connect(**self._parameters)

    def open_batch_writer(self, node_id: str, epoch: int) -> PostgresBatchWriter:
        """Return what adds one owner's batches; it connects when it is used."""
        return PostgresBatchWriter(self, node_id, epoch)

    def open_notices(self) -> PostgresNotices:
        """Listen for changes of the ring, on a connection of its own."""
        try:
            return PostgresNotices(self.connect())
        except psycopg.Error as error:
            raise ArchiveUnavailableError(self.reason(error)) from error

    def name_connections(self, node_id: str) -> None:
        """Have others find the connections of the writer by their node."""
        self._parameters["application_name"] = connection_name(node_id)

    def end_connections(self, connection: Connection, node_id: str, epoch: int) -> None:
        """End the connections of a node, while it is in this epoch: a transaction that hangs holds locks."""
        parameters = {"name": connection_name(node_id), "node_id": node_id, "epoch": epoch}
        connection.execute(_END_CONNECTIONS, parameters)


def connection_name(node_id: str) -> str:
    """Return what `pg_stat_activity` has for the connections of a node."""
    return f"ringlog {node_id}"


def encode_messages(records: Sequence[MessageRecord]) -> bytes:
    """Return rows in COPY's text format."""
    parts: list[bytes] = []
    for record in records:
        client_id = record.client_id
        parts.append(
            f"{record.workspace}\t{record.session}\t{record.seq}\t{record.id}\t{record.sender}\t"
            f"{_NULL if client_id is None else client_id}\t{record.digest}\t{record.at_ms}\t".encode()
        )
        parts.append(record.body)
        parts.append(b"\n")
    rows = b"".join(parts).replace(b"\\", b"\\\\")
    # A tab, newline or carriage return inside a value is rare: found by counting, then escaped.
    count = len(records)
    if rows.count(b"\t") == 8 * count and rows.count(b"\n") == count and b"\r" not in rows:
        return rows
    return b"".join(map(_escape_row, records))


def _escape_row(record: MessageRecord) -> bytes:
    values = (
        record.workspace.encode(),
        record.session.encode(),
        b"%d" % record.seq,
        record.id.encode(),
        record.sender.encode(),
        (_NULL if record.client_id is None else record.client_id).encode(),
        b"%d" % record.digest,
        b"%d" % record.at_ms,
        record.body,
    )
    return b"\t".join(map(_escape, values)) + b"\n"


def _escape(value: bytes) -> bytes:
    return (
        value.replace(b"\\", b"\\\\")
        .replace(b"\t", b"\\t")
        .replace(b"\n", b"\\n")
        .replace(b"\r", b"\\r")
    )


def _copy(connection: Connection, statement: str, rows: bytes) -> None:
    driver_connection: Any = connection.connection.driver_connection
    try:
        with driver_connection.cursor() as cursor:
            writer = LibpqWriter(cursor, flush_threshold=COPY_FLUSH_BYTES)
            with cursor.copy(statement, writer=writer) as copy:
                copy.write(rows)
    except psycopg.Error as error:
        if driver_connection.closed:
            connection.invalidate(error)
        raise DBAPIError(statement, None, error) from error


def _original(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _connection_parameters(url: str) -> dict[str, Any]:
    """Return what a connection is opened with: the URL's own words win over ours."""
    try:
        given = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        # Its message quotes the URL, and so the password.
        raise ArchiveUnavailableError("the postgresql:// URL cannot be read") from None
    options = " ".join(f"-c {name}={value}" for name, value in SERVER_SETTINGS.items())
    options = f"{given.pop('options', '')} {options}".strip()
    return CONNECTION_PARAMETERS | given | {"options": options}
