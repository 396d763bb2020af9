"""What differs between SQLite and PostgreSQL, and nothing more.

A dialect opens the engines, says how many rows are moved by one statement, and sorts the
database's errors by what is to be done about them. Everything else is written once, in SQL that
both accept.
"""

import enum
from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection, Engine

from storage.batches import BatchWriter
from storage.record import MessageRecord


class Fault(enum.Enum):
    """What a database error asks for."""

    DUPLICATE = "a row stands under the key already: compare"
    REFUSED = "a row's own data is refused: find it and set it aside"
    UNAVAILABLE = "anything else: roll back and try again later"


class RingNotices(Protocol):
    """Tells that the ring has changed: who waits until it is readable learns that something came."""

    def fileno(self) -> int:
        """Return a socket's number."""
        ...

    def take(self) -> bool:
        """Return whether the ring has changed; does not block.

        Raises:
            ArchiveUnavailableError: nothing more will come.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Dialect(Protocol):
    """A database, opened. Every method blocks; any thread may call it."""

    writer: Engine
    """Its transactions are serialised with those of other processes where the database needs it."""

    reader: Engine
    """Each statement is a transaction of its own."""

    replicates: bool
    """Whether it is a second place beside the log, that survives the loss of the machine."""

    hint: str
    """What to do when the database does not answer."""

    rows_sql: str
    """A FROM clause: the JSON array `:rows` as rows with the column `value`."""

    elements_sql: str
    """A FROM clause: the JSON array `sessions.members` as rows with the column `value`."""

    recent_sql: str
    """Aggregates of rows `m` as the JSON array of (sender, client_id, seq, id, digest)."""

    reads_sql: str
    """Aggregates of rows `r` as the JSON object of user to seq."""

    dispatches_sql: str
    """Aggregates of rows `d` as the JSON array of (dispatch, body)."""

    page_sql: str
    """Aggregates of rows (seq, body): seqs and lengths joined by commas, bodies by nothing."""

    joined_slots_sql: str
    """Aggregates of rows of `slots`: their numbers, joined by commas."""

    joined_sessions_sql: str
    """Aggregates of rows (workspace, session): a line for each, the two names with a space between."""

    bytes_sql: str
    """A message's body as raw bytes."""

    notify_sql: str
    """Tells those who listen that the ring has changed; "" where nobody can."""

    def is_there(self) -> bool:
        """Return whether there is a database that could be asked."""
        ...

    def create(self) -> None:
        """Make the database if there is none and if that is ours to do."""
        ...

    def check(self) -> None:
        """Check that the database answers and runs with the settings that durability rests on."""
        ...

    def lock_migrations(self, connection: Connection) -> None:
        """Keep other processes out until the transaction ends."""
        ...

    def allow_long(self, connection: Connection) -> None:
        """Let the rest of the transaction take as long as it takes."""
        ...

    def open_batch_writer(self, node_id: str, epoch: int) -> BatchWriter:
        """Return what adds one owner's batches.

        Raises:
            ArchiveSettingsError: it does not replicate.
        """
        ...

    def open_notices(self) -> RingNotices | None:
        """Listen for changes of the ring, on a connection of its own; None where nobody can."""
        ...

    def name_connections(self, node_id: str) -> None:
        """Have others find the connections of the writer by their node."""
        ...

    def end_connections(self, connection: Connection, node_id: str, epoch: int) -> None:
        """End the connections of another node, while it is in this epoch."""
        ...

    def insert_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert rows that are all new, or fail."""
        ...

    def merge_messages(self, connection: Connection, records: Sequence[MessageRecord]) -> None:
        """Insert the rows that are not there yet.

        Raises:
            ArchiveConflictError: another row stands under the same key.
        """
        ...

    def fault(self, error: Exception) -> Fault:
        """Say what an error asks for."""
        ...

    def reason(self, error: Exception) -> str:
        """Describe an error on one line, without secrets."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...
