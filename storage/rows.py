"""Writing a batch of records as rows, inside the caller's transaction.

Applying a batch twice changes nothing: a message that stands already is compared and left alone, a
session's row gives way only to a higher `version`, a read cursor only moves up. What depends on a
session (its members, the erasure of what it held) is derived from its row as it then stands, not
from the batch.

A row that the database refuses for its data must stop neither the log nor the other rows: it is
found by halving, and goes to `dead_letters` as raw bytes, from where a message is still read at
its seq. That takes savepoints, which cost every flush two round trips: so a batch is written
without them first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from storage.dialect import Dialect, Fault
from storage.dispatches import DispatchWriter
from storage.errors import ArchiveConflictError
from storage.record import (
    ChunkRecord,
    DispatchRecord,
    MessageRecord,
    ReadRecord,
    Record,
    SessionRecord,
)

R = TypeVar("R", MessageRecord, ReadRecord, SessionRecord, DispatchRecord, ChunkRecord)

ERROR_CHARS_MAX = 500
"""How much of the database's own words a dead letter keeps: enough to find the reason."""

_KEYS = "SELECT value ->> 0, value ->> 1 FROM {rows}"

_WRITE_SESSIONS = """
    INSERT INTO sessions (workspace, session, user_id, members, state, created_at_ms, updated_at_ms,
                          version, body)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
           CAST(value ->> 5 AS BIGINT), CAST(value ->> 6 AS BIGINT), CAST(value ->> 7 AS BIGINT),
           value ->> 8
    FROM {rows} WHERE true
    ON CONFLICT (workspace, session) DO UPDATE SET
        user_id = excluded.user_id, members = excluded.members, state = excluded.state,
        created_at_ms = excluded.created_at_ms, updated_at_ms = excluded.updated_at_ms,
        version = excluded.version, body = excluded.body
    WHERE excluded.version > sessions.version
"""

_DROP_MEMBERS = f"DELETE FROM session_members WHERE (workspace, session) IN ({_KEYS})"  # noqa: S608 - constants

_ADD_MEMBERS = f"""
    INSERT INTO session_members (workspace, session, user_id, created_at_ms)
    SELECT s.workspace, s.session, s.user_id, s.created_at_ms FROM sessions AS s
    WHERE s.state <> 'deleted' AND (s.workspace, s.session) IN ({_KEYS})
    UNION
    SELECT s.workspace, s.session, value, s.created_at_ms FROM sessions AS s, {{elements}}
    WHERE s.state <> 'deleted' AND (s.workspace, s.session) IN ({_KEYS})
"""  # noqa: S608 - constants

_ERASE = f"""
    DELETE FROM {{table}} WHERE (workspace, session) IN (
        SELECT s.workspace, s.session FROM sessions AS s
        WHERE s.state = 'deleted' AND (s.workspace, s.session) IN ({_KEYS}))
"""  # noqa: S608 - constants

_ERASED_TABLES = ("messages", "read_cursors", "dispatches", "chunks", "dead_letters")

_WRITE_READS = """
    INSERT INTO read_cursors (workspace, session, user_id, seq)
    SELECT value ->> 0, value ->> 1, value ->> 2, CAST(value ->> 3 AS BIGINT)
    FROM {rows} WHERE true
    ON CONFLICT (workspace, session, user_id) DO UPDATE SET seq = excluded.seq
    WHERE excluded.seq > read_cursors.seq
"""

_BURY = text("""
    INSERT INTO dead_letters (table_name, workspace, session, seq, sender, id, client_id, digest,
                              at_ms, body, error)
    VALUES (:table_name, :workspace, :session, :seq, :sender, :id, :client_id, :digest, :at_ms,
            :body, :error)
    ON CONFLICT DO NOTHING
""")

_BURIED = text("""
    SELECT body, digest FROM dead_letters
    WHERE table_name = :table_name AND workspace = :workspace AND session = :session
      AND seq = :seq AND sender = :sender
""")


class RowsRefusedError(Exception):
    """Some row of the batch stands already, or is refused for its data: begin again, carefully."""


class RowWriter:
    """The statements that write one dialect's archive, made once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._write_sessions = self._prepare(_WRITE_SESSIONS)
        self._drop_members = self._prepare(_DROP_MEMBERS)
        self._add_members = self._prepare(_ADD_MEMBERS)
        self._erase = [self._prepare(_ERASE, table=table) for table in _ERASED_TABLES]
        self._write_reads = self._prepare(_WRITE_READS)
        self._dispatches = DispatchWriter(dialect)

    def write(self, connection: Connection, records: Sequence[Record]) -> None:
        """Apply a batch of rows that are all new and all accepted.

        Raises:
            RowsRefusedError: they are not; roll back.
            DBAPIError: the database failed; nothing about the batch is known to be wrong.
        """
        batch = _sort(records)
        try:
            if batch.messages:
                self._dialect.insert_messages(connection, batch.messages)
            if batch.reads:
                self._put_reads(connection, batch.reads)
            if batch.chunks:
                self._dispatches.put_chunks(connection, batch.chunks)
            if batch.dispatches:
                self._dispatches.put_dispatches(connection, batch.dispatches)
            if batch.sessions:
                self._put_sessions(connection, batch.sessions)
        except (DBAPIError, UnicodeError) as error:
            if self._dialect.fault(error) is Fault.UNAVAILABLE:
                raise
            raise RowsRefusedError from error

    def write_carefully(self, connection: Connection, records: Sequence[Record]) -> None:
        """Apply a batch whatever rows it holds.

        Raises:
            ArchiveConflictError: another row stands under the key of one of these.
            DBAPIError: the database failed; nothing about the batch is known to be wrong.
        """
        batch = _sort(records)
        self._apply(connection, batch.messages, self._dialect.merge_messages)
        self._apply(connection, batch.reads, self._put_reads)
        self._apply(connection, batch.chunks, self._dispatches.put_chunks)
        self._apply(connection, batch.dispatches, self._dispatches.put_dispatches)
        self._apply(connection, batch.sessions, self._put_sessions)

    def _apply(
        self,
        connection: Connection,
        records: Sequence[R],
        put: Callable[[Connection, Sequence[R]], None],
    ) -> None:
        """Write rows, and set aside those that are refused."""
        if not records:
            return
        try:
            with connection.begin_nested():
                put(connection, records)
        except (DBAPIError, UnicodeError) as error:
            if self._dialect.fault(error) is not Fault.REFUSED:
                raise
            reason = self._dialect.reason(error)
        else:
            return
        if len(records) == 1:
            self._bury(connection, records[0], reason)
            return
        middle = len(records) // 2
        self._apply(connection, records[:middle], put)
        self._apply(connection, records[middle:], put)

    def _put_sessions(self, connection: Connection, records: Sequence[SessionRecord]) -> None:
        rows = [
            (
                record.workspace,
                record.session,
                record.user_id,
                msgspec.json.encode(record.members).decode(),
                record.state,
                record.created_at_ms,
                record.updated_at_ms,
                record.version,
                record.body.decode(),
            )
            for record in records
        ]
        parameters = {"rows": msgspec.json.encode(rows).decode()}
        connection.execute(self._write_sessions, parameters)
        connection.execute(self._drop_members, parameters)
        connection.execute(self._add_members, parameters)
        if any(record.state == "deleted" for record in records):
            # A session of millions of messages would be begun anew after every time-out, for ever.
            self._dialect.allow_long(connection)
            for erase in self._erase:
                connection.execute(erase, parameters)

    def _put_reads(self, connection: Connection, records: Sequence[ReadRecord]) -> None:
        rows = [(record.workspace, record.session, record.user, record.seq) for record in records]
        connection.execute(self._write_reads, {"rows": msgspec.json.encode(rows).decode()})

    def _bury(self, connection: Connection, record: Record, reason: str) -> None:
        """Set a refused row aside, keeping its bytes."""
        row = _dead_letter(record) | {"error": reason[:ERROR_CHARS_MAX]}
        connection.execute(_BURY, row)
        body, digest = connection.execute(_BURIED, row).one()
        if bytes(body) != row["body"] or digest != row["digest"]:
            key = f"{row['workspace']}/{row['session']}/{row['seq']}"
            raise ArchiveConflictError("dead_letters", key)

    def _prepare(self, sql: str, table: str = "") -> TextClause:
        return text(
            sql.format(
                rows=self._dialect.rows_sql, elements=self._dialect.elements_sql, table=table
            )
        )


class _Batch(NamedTuple):
    """A batch by kind, in the order of writing.

    Dispatches come after chunks, so that a closed one takes its own with it; sessions come last, so that a deleted
    one takes with it what came before.
    """

    messages: Sequence[MessageRecord]
    reads: Sequence[ReadRecord]
    chunks: Sequence[ChunkRecord]
    dispatches: Sequence[DispatchRecord]
    sessions: Sequence[SessionRecord]


def _sort(records: Sequence[Record]) -> _Batch:
    messages = [record for record in records if type(record) is MessageRecord]
    # Of several states of one thing only the last is worth writing, and only one may be: PostgreSQL
    # refuses to change a row twice in one statement.
    reads: dict[tuple[str, str, str], ReadRecord] = {}
    sessions: dict[tuple[str, str], SessionRecord] = {}
    dispatches: dict[tuple[str, str, str], DispatchRecord] = {}
    chunks: list[ChunkRecord] = []
    if len(messages) < len(records):
        for record in records:
            if type(record) is ReadRecord:
                reader = (record.workspace, record.session, record.user)
                if reader not in reads or reads[reader].seq < record.seq:
                    reads[reader] = record
            elif type(record) is SessionRecord:
                key = (record.workspace, record.session)
                if key not in sessions or sessions[key].version < record.version:
                    sessions[key] = record
            elif type(record) is DispatchRecord:
                call = (record.workspace, record.session, record.dispatch)
                if call not in dispatches or dispatches[call].version < record.version:
                    dispatches[call] = record
            elif type(record) is ChunkRecord:
                chunks.append(record)
    if chunks and dispatches:
        # An answer that came and ended within one flush leaves no chunk behind.
        chunks = [each for each in chunks if _may_grow(each, dispatches)]
    return _Batch(
        messages,
        list(reads.values()),
        chunks,
        list(dispatches.values()),
        list(sessions.values()),
    )


def _may_grow(
    chunk: ChunkRecord, dispatches: Mapping[tuple[str, str, str], DispatchRecord]
) -> bool:
    dispatch = dispatches.get((chunk.workspace, chunk.session, chunk.dispatch))
    return dispatch is None or dispatch.is_open


def _dead_letter(record: Record) -> dict[str, object]:
    row: dict[str, object] = {
        "workspace": record.workspace,
        "session": record.session,
        "id": "",
        "client_id": None,
        "digest": 0,
        "body": record.body,
    }
    match record:
        case MessageRecord():
            return row | {
                "table_name": "messages",
                "seq": record.seq,
                "sender": record.sender,
                "id": record.id,
                "client_id": record.client_id,
                "digest": record.digest,
                "at_ms": record.at_ms,
            }
        case ReadRecord():
            return row | {
                "table_name": "read_cursors",
                "seq": record.seq,
                "sender": record.user,
                "at_ms": record.at_ms,
            }
        case SessionRecord():
            return row | {
                "table_name": "sessions",
                "seq": record.version,
                "sender": record.user_id,
                "at_ms": record.updated_at_ms,
            }
        case DispatchRecord():
            return row | {
                "table_name": "dispatches",
                "seq": record.version,
                "sender": record.dispatch,
                "at_ms": record.updated_at_ms,
            }
        case ChunkRecord():
            return row | {
                "table_name": "chunks",
                "seq": record.place,
                "sender": f"{record.dispatch} {record.attempt}",
                "at_ms": record.at_ms,
            }
