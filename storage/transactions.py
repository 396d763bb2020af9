"""Transactions of a database, and what its errors are to those above: the one place that translates them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from storage.dialect import Dialect
from storage.errors import ArchiveUnavailableError
from storage.failpoints import failpoint

T = TypeVar("T")


class Transactions:
    """Runs what is to be done in a database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    @contextmanager
    def begin(self, name: str = "") -> Iterator[Connection]:
        """Commit at the end of the block, roll back if it raises; one with a name has failpoints."""
        try:
            with self._dialect.writer.begin() as connection:
                yield connection
                failpoint(f"{name}.written")
            failpoint(f"{name}.committed")
        except SQLAlchemyError as error:
            raise unavailable(self._dialect, error) from error

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run one query, and once more if its connection turns out to be an old, dead one."""
        try:
            try:
                with self._dialect.reader.connect() as connection:
                    return query(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with self._dialect.reader.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise unavailable(self._dialect, error) from error


def unavailable(dialect: Dialect, error: Exception) -> ArchiveUnavailableError:
    """Return a database's error as ours."""
    return ArchiveUnavailableError(dialect.reason(error), dialect.hint)
