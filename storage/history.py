"""Reading the archive: one session's state, a page of its messages, a list of sessions.

A read is one statement and one row wherever that is possible: the rows are put together in the
database and taken apart here, so that a reader neither waits for the network nor for the GIL more
than once. A message that was set aside in `dead_letters` is read like any other.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, or_, select, text

from storage.dialect import Dialect
from storage.errors import CursorMismatchError
from storage.record import SessionRecord
from storage.schema import session_members, sessions

SEQ_END = 2**63 - 1
"""Above every seq."""

SessionKey = tuple[str, str]
"""workspace, session."""

Recent = tuple[str, str, int, str, int]
"""sender, client_id, seq, id, digest."""

_recent_decoder = msgspec.json.Decoder(list[tuple[str, str | None, int, str, int]])
_reads_decoder = msgspec.json.Decoder(dict[str, int])
_dispatches_decoder = msgspec.json.Decoder(list[tuple[str, str]])
_members_decoder = msgspec.json.Decoder(tuple[str, ...])

# Each half is limited by itself: neither database would stop early in a union that it has to sort.
_ROWS = """
    SELECT * FROM (
        SELECT {columns} FROM messages
        WHERE workspace = {workspace} AND session = {session} AND seq > :after AND seq < :before
        ORDER BY seq {order} LIMIT :limit
    ) AS accepted
    UNION ALL
    SELECT * FROM (
        SELECT {dead_columns} FROM dead_letters AS d
        WHERE table_name = 'messages' AND workspace = {workspace} AND session = {session}
          AND seq > :after AND seq < :before
          -- A refused row may have been accepted when it was flushed again.
          AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.workspace = d.workspace
                          AND m.session = d.session AND m.seq = d.seq)
        ORDER BY seq {order} LIMIT :limit
    ) AS refused
    ORDER BY seq {order} LIMIT :limit
"""

_PAGE = """
    WITH page AS ({rows}),
    measured AS (
        SELECT seq, body, row_number() OVER nearest AS place,
               sum(length(body)) OVER nearest AS total
        FROM page WINDOW nearest AS (ORDER BY seq {order})
    )
    SELECT {page} FROM measured WHERE place = 1 OR total <= :bytes_max
"""

_RECENT_COLUMNS = "sender, client_id, seq, id, digest"

# The cursor comes with the sessions, out of one statement: an archive that is restored meanwhile must not
# be seen half before and half after. So there is at least one row.
_SESSIONS = """
    SELECT flushed.lsn AS cursor,
           s.workspace, s.session, s.user_id, s.members, s.state, s.created_at_ms, s.updated_at_ms,
           s.version, s.body,
           (SELECT {recent} FROM ({rows}) AS m) AS recent,
           (SELECT {reads} FROM read_cursors AS r
            WHERE r.workspace = s.workspace AND r.session = s.session) AS reads,
           (SELECT {dispatches} FROM dispatches AS d
            WHERE d.workspace = s.workspace AND d.session = s.session AND d.is_open = 1) AS dispatches
    FROM (SELECT coalesce((SELECT lsn FROM flush_cursors WHERE node_id = :node_id), 0) AS lsn)
         AS flushed
    LEFT JOIN (
        SELECT known.*
        FROM (SELECT value ->> 0 AS workspace, value ->> 1 AS session FROM {asked}) AS asked
        JOIN sessions AS known ON known.workspace = asked.workspace AND known.session = asked.session
    ) AS s ON true
"""

# At least one row, for the cursor; and then one for each session that is there, which are few as a rule.
_EXISTING = """
    SELECT flushed.lsn AS cursor, found.workspace, found.session
    FROM (SELECT coalesce((SELECT lsn FROM flush_cursors WHERE node_id = :node_id), 0) AS lsn)
         AS flushed
    LEFT JOIN (
        SELECT s.workspace, s.session
        FROM (SELECT value ->> 0 AS workspace, value ->> 1 AS session FROM {rows}) AS asked
        JOIN sessions AS s ON s.workspace = asked.workspace AND s.session = asked.session
    ) AS found ON true
"""

_KEYS = """
    SELECT {joined} FROM (
        SELECT workspace, session FROM sessions
        WHERE (workspace, session) > (:workspace, :session) AND state <> 'deleted'
        ORDER BY workspace, session LIMIT :limit
    ) AS page
"""


class SessionSnapshot(msgspec.Struct, frozen=True):
    """What the archive knows of a session.

    `recent` holds the messages with a `client_id` among the last ones, ascending by seq; `dispatches` those that are
    open, oldest first.
    """

    record: SessionRecord
    head_seq: int
    recent: list[Recent]
    reads: dict[str, int]
    dispatches: tuple[bytes, ...] = ()


class History:
    """The statements that read one dialect's archive, made once."""

    def __init__(self, dialect: Dialect) -> None:
        self._sessions = text(
            _SESSIONS.format(
                recent=dialect.recent_sql,
                reads=dialect.reads_sql,
                dispatches=dialect.dispatches_sql,
                asked=dialect.rows_sql,
                rows=_ROWS.format(
                    columns=_RECENT_COLUMNS,
                    dead_columns=_RECENT_COLUMNS,
                    workspace="s.workspace",
                    session="s.session",
                    order="DESC",
                ),
            )
        )
        self._existing = text(_EXISTING.format(rows=dialect.rows_sql))
        self._keys = text(_KEYS.format(joined=dialect.joined_sessions_sql))
        self._pages = {
            newest: text(
                _PAGE.format(
                    page=dialect.page_sql,
                    rows=_ROWS.format(
                        columns=f"seq, {dialect.bytes_sql} AS body",
                        dead_columns="seq, body",
                        workspace=":workspace",
                        session=":session",
                        order="DESC" if newest else "ASC",
                    ),
                    order="DESC" if newest else "ASC",
                )
            )
            for newest in (False, True)
        }

    def read_sessions(
        self,
        connection: Connection,
        keys: Sequence[SessionKey],
        dedup_limit: int,
        node_id: str,
        cursor: int,
    ) -> dict[SessionKey, SessionSnapshot]:
        """Return what is known of sessions; nothing of one that was never created.

        Raises:
            CursorMismatchError: the archive is behind `cursor`, up to which `node_id` had flushed.
        """
        assert dedup_limit > 0
        rows = connection.execute(
            self._sessions,
            {
                "node_id": node_id,
                "rows": msgspec.json.encode(keys).decode(),
                "after": 0,
                "before": SEQ_END,
                "limit": dedup_limit,
            },
        ).all()
        found_cursor = rows[0].cursor
        if found_cursor < cursor:
            raise CursorMismatchError(cursor, found_cursor)
        return {
            (row.workspace, row.session): _snapshot(row, dedup_limit)
            for row in rows
            if row.session is not None
        }

    def find_sessions(
        self,
        connection: Connection,
        keys: Sequence[SessionKey],
        node_id: str,
        cursor: int,
    ) -> set[SessionKey]:
        """Return which of these sessions were ever created, also those that were erased.

        Raises:
            CursorMismatchError: the archive is behind `cursor`, up to which `node_id` had flushed.
        """
        rows = connection.execute(
            self._existing, {"node_id": node_id, "rows": msgspec.json.encode(keys).decode()}
        ).all()
        found_cursor = rows[0].cursor
        if found_cursor < cursor:
            raise CursorMismatchError(cursor, found_cursor)
        return {(row.workspace, row.session) for row in rows if row.session is not None}

    def list_keys(self, connection: Connection, after: SessionKey, limit: int) -> list[SessionKey]:
        """Return the names of sessions that were not erased, ascending, beginning after `after`."""
        workspace, session = after
        joined = connection.scalar(
            self._keys, {"workspace": workspace, "session": session, "limit": limit}
        )
        # No name holds a space or a line feed.
        names = [line.split(" ") for line in joined.split("\n")] if joined else []
        # The order inside an aggregate is the database's own affair.
        return sorted((workspace, session) for workspace, session in names)

    def read_messages(
        self,
        connection: Connection,
        workspace: str,
        session: str,
        bounds: tuple[int, int],
        limit: int,
        bytes_max: int,
        *,
        newest: bool,
    ) -> list[tuple[int, bytes]]:
        """Return messages with bounds[0] < seq < bounds[1], ascending.

        The first `limit` of them, or the last if `newest`; fewer where their bodies would exceed
        `bytes_max`, but never none if there is one.
        """
        seqs, lengths, bodies = connection.execute(
            self._pages[newest],
            {
                "workspace": workspace,
                "session": session,
                "after": bounds[0],
                "before": bounds[1],
                "limit": limit,
                "bytes_max": bytes_max,
            },
        ).one()
        if seqs is None:
            return []
        ends = accumulate(map(int, lengths.split(",")))
        start = 0
        page: list[tuple[int, bytes]] = []
        for seq, end in zip(map(int, seqs.split(",")), ends, strict=True):
            page.append((seq, bodies[start:end]))
            start = end
        assert start == len(bodies)
        page.sort(key=itemgetter(0))
        return page


def list_sessions(
    connection: Connection,
    workspace: str,
    user_id: str | None,
    after: tuple[int, str] | None,
    limit: int,
    *,
    include_archived: bool,
) -> list[SessionRecord]:
    """Return sessions newest first, then by id; those of one user where `user_id` is given."""
    query = select(sessions).order_by(sessions.c.created_at_ms.desc(), sessions.c.session)
    keys = sessions.c
    if user_id is not None:
        keys = session_members.c
        query = (
            select(sessions)
            .join(
                session_members,
                and_(
                    session_members.c.workspace == sessions.c.workspace,
                    session_members.c.session == sessions.c.session,
                ),
            )
            .where(session_members.c.user_id == user_id)
            .order_by(session_members.c.created_at_ms.desc(), session_members.c.session)
        )
    query = query.where(keys.workspace == workspace, sessions.c.state != "deleted")
    if not include_archived:
        query = query.where(sessions.c.state != "archived")
    if after is not None:
        created_at_ms, session = after
        query = query.where(
            # The first term alone is what an index can begin from.
            keys.created_at_ms <= created_at_ms,
            or_(keys.created_at_ms < created_at_ms, keys.session > session),
        )
    return [_session_record(row) for row in connection.execute(query.limit(limit))]


def _snapshot(row: Row[Any], dedup_limit: int) -> SessionSnapshot:
    recent = [] if row.recent is None else _recent_decoder.decode(row.recent)
    # The order inside an aggregate is the database's own affair.
    recent.sort(key=itemgetter(2))
    return SessionSnapshot(
        record=_session_record(row),
        head_seq=recent[-1][2] if recent else 0,
        recent=[
            (sender, client_id, seq, message_id, digest)
            for sender, client_id, seq, message_id, digest in recent[-dedup_limit:]
            if client_id is not None
        ],
        reads={} if row.reads is None else _reads_decoder.decode(row.reads),
        dispatches=() if row.dispatches is None else _open_dispatches(row.dispatches),
    )


def _open_dispatches(joined: str) -> tuple[bytes, ...]:
    # Their ids are in order of time.
    return tuple(body.encode() for _, body in sorted(_dispatches_decoder.decode(joined)))


def _session_record(row: Row[Any]) -> SessionRecord:
    return SessionRecord(
        workspace=row.workspace,
        session=row.session,
        user_id=row.user_id,
        members=_members_decoder.decode(row.members),
        state=row.state,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        version=row.version,
        body=row.body.encode(),
    )
