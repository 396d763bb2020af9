"""Archives that take nothing for a while, whichever database they are: `bench.outage` for both.

PostgreSQL has no lock for a whole database. A lock on two tables does the same here: they can be read, every
flush waits for one of them, gives up after the server's own timeout, and is repeated.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing

import psycopg
import trio

from bench.outage import LOCK_SECONDS_MAX, OutageError, archive_file, hold_archive

_LOCK = "LOCK TABLE sessions, messages IN EXCLUSIVE MODE"


def hold(archive: str) -> AbstractAsyncContextManager[None]:
    """Let nobody write into an archive until the block ends.

    Raises:
        OutageError: Somebody else holds it.
    """
    file = archive_file(archive)
    return hold_postgres(archive) if file is None else hold_archive(file)


@asynccontextmanager
async def hold_postgres(url: str) -> AsyncIterator[None]:
    """Let nobody write into a PostgreSQL archive until the block ends.

    Raises:
        OutageError: Somebody else holds it, or it does not answer.
    """

    def take() -> psycopg.Connection:
        connection = psycopg.connect(url)
        try:
            connection.execute(f"SET lock_timeout = '{LOCK_SECONDS_MAX}s'")
            connection.execute(_LOCK)
        except psycopg.Error:
            connection.close()
            raise
        return connection

    try:
        connection = await trio.to_thread.run_sync(take)
    except psycopg.Error as error:
        raise OutageError(f"the archive could not be held back: {error}") from error
    # This rolls back; nothing was written.
    with closing(connection):
        yield
