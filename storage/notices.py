"""Hearing from PostgreSQL that the ring has changed, sooner than by asking again and again.

A notice is sent by the transaction that moves the ring's version, and arrives after its COMMIT. It says no more than
that it is time to look; one that is lost costs the time until the next poll.
"""

import psycopg

from storage.errors import ArchiveUnavailableError

CHANNEL = "ringlog_ring"

NOTIFY = f"SELECT pg_notify('{CHANNEL}', '')"


class PostgresNotices:
    """A connection that listens. Who waits for it to become readable learns that something came."""

    def __init__(self, connection: psycopg.Connection[object]) -> None:
        """Listen from now on. Blocks.

        Raises:
            psycopg.Error: the connection is over.
        """
        self._connection = connection
        connection.autocommit = True
        connection.execute(f"LISTEN {CHANNEL}".encode())

    def fileno(self) -> int:
        """Return the socket's number, to wait until it is readable."""
        return self._connection.fileno()

    def take(self) -> bool:
        """Return whether the ring has changed; does not block.

        Raises:
            ArchiveUnavailableError: the connection is over.
        """
        driver = self._connection.pgconn
        try:
            driver.consume_input()
        except psycopg.Error as error:
            raise ArchiveUnavailableError(str(error)) from error
        came = False
        while driver.notifies() is not None:
            came = True
        return came

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
