"""Calls to agents in the archive: their state, and the pieces of answers that are still being given.

Written like everything else that is flushed: twice changes nothing. A dispatch's row gives way only to a higher
`version`; a chunk stays as it came first, and goes in the transaction that closes its dispatch. In the log no chunk
follows the record that closes its dispatch, so none comes back but with a batch that takes it away again.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Row, select, text

from storage.dialect import Dialect
from storage.record import ChunkRecord, DispatchRecord
from storage.schema import chunks, dispatches

T = TypeVar("T")

_WRITE_DISPATCHES = """
    INSERT INTO dispatches (workspace, session, dispatch, agent, state, is_open, created_at_ms,
                            updated_at_ms, version, body)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
           CAST(value ->> 5 AS BIGINT), CAST(value ->> 6 AS BIGINT), CAST(value ->> 7 AS BIGINT),
           CAST(value ->> 8 AS BIGINT), value ->> 9
    FROM {rows} WHERE true
    ON CONFLICT (workspace, session, dispatch) DO UPDATE SET
        agent = excluded.agent, state = excluded.state, is_open = excluded.is_open,
        created_at_ms = excluded.created_at_ms, updated_at_ms = excluded.updated_at_ms,
        version = excluded.version, body = excluded.body
    WHERE excluded.version > dispatches.version
"""

_WRITE_CHUNKS = """
    INSERT INTO chunks (workspace, session, dispatch, attempt, place, at_ms, body)
    SELECT value ->> 0, value ->> 1, value ->> 2, CAST(value ->> 3 AS BIGINT),
           CAST(value ->> 4 AS BIGINT), CAST(value ->> 5 AS BIGINT), value ->> 6
    FROM {rows} WHERE true
    ON CONFLICT (workspace, session, dispatch, attempt, place) DO NOTHING
"""

_DROP_CHUNKS = """
    DELETE FROM chunks WHERE (workspace, session, dispatch) IN (
        SELECT d.workspace, d.session, d.dispatch FROM dispatches AS d
        WHERE d.is_open = 0 AND (d.workspace, d.session, d.dispatch) IN (
            SELECT value ->> 0, value ->> 1, value ->> 2 FROM {rows}))
"""


class StoredDispatch(msgspec.Struct, frozen=True):
    """A dispatch as the archive has it."""

    workspace: str
    session: str
    dispatch: str
    body: bytes


class DispatchWriter:
    """The statements that write one dialect's archive, made once."""

    def __init__(self, dialect: Dialect) -> None:
        self._write_dispatches = text(_WRITE_DISPATCHES.format(rows=dialect.rows_sql))
        self._write_chunks = text(_WRITE_CHUNKS.format(rows=dialect.rows_sql))
        self._drop_chunks = text(_DROP_CHUNKS.format(rows=dialect.rows_sql))

    def put_dispatches(self, connection: Connection, records: Sequence[DispatchRecord]) -> None:
        """Write these states where none is newer, and drop the chunks of what is closed."""
        rows = [
            (
                record.workspace,
                record.session,
                record.dispatch,
                record.agent,
                record.state,
                int(record.is_open),
                record.created_at_ms,
                record.updated_at_ms,
                record.version,
                record.body.decode(),
            )
            for record in records
        ]
        parameters = {"rows": msgspec.json.encode(rows).decode()}
        connection.execute(self._write_dispatches, parameters)
        if not all(record.is_open for record in records):
            connection.execute(self._drop_chunks, parameters)

    def put_chunks(self, connection: Connection, records: Sequence[ChunkRecord]) -> None:
        """Write these chunks."""
        rows = [
            (
                record.workspace,
                record.session,
                record.dispatch,
                record.attempt,
                record.place,
                record.at_ms,
                record.body.decode(),
            )
            for record in records
        ]
        connection.execute(self._write_chunks, {"rows": msgspec.json.encode(rows).decode()})


class Query(Protocol):
    """Runs one query of the archive; blocks, and raises as `Archive`'s own reads."""

    def __call__(self, query: Callable[[Connection], T], /) -> T:
        """Return what the query returns."""
        ...


class DispatchReader:
    """What is asked of dispatches; every method blocks, and raises `ArchiveUnavailableError`."""

    def __init__(self, read: Query) -> None:
        self._read = read

    def list_open(
        self, after: tuple[str, str] = ("", ""), limit: int = 5_000
    ) -> list[tuple[str, str]]:
        """Return (workspace, session) of sessions with open dispatches, ascending, beginning after `after`."""
        keys = dispatches.c
        workspace, session = after
        later = (keys.workspace == workspace) & (keys.session > session)
        query = (
            select(keys.workspace, keys.session)
            .distinct()
            .where(keys.is_open == 1, (keys.workspace > workspace) | later)
            .order_by(keys.workspace, keys.session)
            .limit(limit)
        )
        return self._read(
            lambda connection: [(row.workspace, row.session) for row in connection.execute(query)]
        )

    def read_chunks(self, workspace: str, session: str, dispatch: str, attempt: int) -> list[bytes]:
        """Return the chunks of one attempt of an open dispatch, in order."""
        keys = chunks.c
        query = (
            select(keys.body)
            .where(
                keys.workspace == workspace,
                keys.session == session,
                keys.dispatch == dispatch,
                keys.attempt == attempt,
            )
            .order_by(keys.place)
        )
        return self._read(
            lambda connection: [row.body.encode() for row in connection.execute(query)]
        )

    def find(self, workspace: str, dispatch: str) -> StoredDispatch | None:
        """Return one dispatch, or None if there is none of this id."""
        query = _STORED.where(
            dispatches.c.dispatch == dispatch, dispatches.c.workspace == workspace
        )
        found = self._read(lambda connection: connection.execute(query).first())
        return None if found is None else _stored(found)

    def list(
        self,
        workspace: str,
        *,
        agent: str | None = None,
        session: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[StoredDispatch]:
        """Return dispatches newest first, of an agent or of a session; those before an id."""
        keys = dispatches.c
        query = _STORED.where(keys.workspace == workspace)
        if agent is not None:
            query = query.where(keys.agent == agent)
        if session is not None:
            query = query.where(keys.session == session)
        if before is not None:
            query = query.where(keys.dispatch < before)
        query = query.order_by(keys.dispatch.desc()).limit(limit)
        return self._read(lambda connection: [_stored(row) for row in connection.execute(query)])


_STORED = select(
    dispatches.c.workspace, dispatches.c.session, dispatches.c.dispatch, dispatches.c.body
)


def _stored(row: Row[str, str, str, str]) -> StoredDispatch:
    return StoredDispatch(row.workspace, row.session, row.dispatch, row.body.encode())
