"""PostgreSQL: one statement for each message, in the extended protocol.

The statement bumps the session's head row and inserts the message, so that the messages of a session have
gapless numbers in the order of their commits. It is parsed once; each message is then Bind, Execute, Sync, and a
transaction of its own::

    B ─▶ E ─▶ S                             B portal statement formats parameters formats
    2 BindComplete ─▶ C CommandComplete ─▶ Z ReadyForQuery        the commit is durable at C
    E ErrorResponse ─▶ Z                                          or it is refused
"""

import struct
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import psycopg

from bench.peers.drivers.driver import Driver, Lines
from bench.wire import WireError

PROTOCOL_3 = 196608
_HEAD = struct.Struct("!cI")
_STATEMENT = b"append"

_TABLES = """
    CREATE TABLE IF NOT EXISTS heads (session text PRIMARY KEY, seq bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS messages (
        session text NOT NULL, seq bigint NOT NULL, content text NOT NULL, PRIMARY KEY (session, seq)
    );
"""

_INSERT = b"""
    WITH head AS (UPDATE heads SET seq = seq + 1 WHERE session = $1 RETURNING seq)
    INSERT INTO messages (session, seq, content) SELECT $1, seq, $2 FROM head
"""

_NOTIFY = b"""
    WITH head AS (UPDATE heads SET seq = seq + 1 WHERE session = $1 RETURNING seq),
    stored AS (
        INSERT INTO messages (session, seq, content) SELECT $1, seq, $2 FROM head RETURNING seq
    )
    SELECT pg_notify('messages', $1 || ':' || seq) FROM stored
"""


class PostgresDriver(Driver):
    """One connection to PostgreSQL, with trust as its authentication."""

    statement = _INSERT

    def set_up(self) -> None:
        """Log in and have the statement parsed."""
        self._has_stored = False
        parts = urlsplit(self.url)
        names = (b"user", (parts.username or "").encode(), b"database", parts.path[1:].encode())
        body = struct.pack("!I", PROTOCOL_3) + b"\0".join(names) + b"\0\0"
        self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self._wait_ready()
        parse = _STATEMENT + b"\0" + self.statement + b"\0" + struct.pack("!HII", 2, 25, 25)
        self.socket.sendall(_message(b"P", parse) + _message(b"S", b""))
        self._wait_ready()

    def _wait_ready(self) -> None:
        lines = Lines(self.socket)
        kind = b""
        while kind != b"Z":
            kind, size = _HEAD.unpack(lines.block(_HEAD.size))
            body = lines.block(size - 4)
            if kind == b"E" or (kind == b"R" and body != bytes(4)):
                raise WireError(f"{self.stream}: PostgreSQL refuses: {body!r}")

    @classmethod
    def prepare(cls, url: str, streams: Sequence[str]) -> None:
        """Make the tables, and a head for each session."""
        try:
            with psycopg.connect(url) as connection:
                connection.execute(_TABLES)
                with connection.cursor() as cursor:
                    cursor.executemany(
                        "INSERT INTO heads VALUES (%s, 0)", [(stream,) for stream in streams]
                    )
        except psycopg.Error as error:
            raise WireError(f"PostgreSQL: {error}") from error

    def frame(self, content: bytes) -> bytes:
        """Return Bind, Execute and Sync."""
        parameters = b"".join(
            struct.pack("!I", len(value)) + value for value in (self.stream.encode(), content)
        )
        bind = b"\0" + _STATEMENT + b"\0" + struct.pack("!HH", 0, 2) + parameters + bytes(2)
        return _message(b"B", bind) + _message(b"E", bytes(5)) + _message(b"S", b"")

    def count_acks(self, data: bytes) -> int:
        """Count commits."""
        data = self._rest + data
        acks, start = 0, 0
        while start + _HEAD.size <= len(data):
            kind, size = _HEAD.unpack_from(data, start)
            end = start + 1 + size
            if end > len(data):
                break
            if kind == b"C":
                # The number of rows: without a head row nothing was stored, and that is no error there.
                self._has_stored = data[end - 3 : end] == b" 1\0"
            elif kind == b"Z":
                if not self._has_stored:
                    raise WireError(f"{self.stream}: the statement stored nothing")
                self._has_stored = False
                acks += 1
            elif kind == b"E":
                raise WireError(f"{self.stream}: refused: {data[start:end]!r}")
            start = end
        self._rest = data[start:]
        return acks

    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of the session, and see that its head agrees with them."""
        try:
            with psycopg.connect(self.url) as connection:
                rows = connection.execute(
                    "SELECT seq, content FROM messages WHERE session = %s ORDER BY seq",
                    (self.stream,),
                ).fetchall()
                head = connection.execute(
                    "SELECT seq FROM heads WHERE session = %s", (self.stream,)
                ).fetchone()
        except psycopg.Error as error:
            raise WireError(f"{self.stream}: {error}") from error
        if head != (len(rows),):
            raise WireError(f"{self.stream}: the head is {head}, and there are {len(rows)} rows")
        for seq, content in rows:
            yield seq, content.encode()


class PostgresNotifyDriver(PostgresDriver):
    """The same, and whoever listens is told in the same transaction."""

    statement = _NOTIFY


def _message(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(kind, len(body) + 4) + body
