"""Opening an archive: which database it is, its settings, its revision."""

from pathlib import Path

import msgspec
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from storage.archive import Archive
from storage.dialect import Dialect
from storage.errors import ArchiveTooNewError, ArchiveUnavailableError
from storage.schema import REVISION
from storage.sqlite import SqliteDialect
from storage.transactions import unavailable

_REVISION = text("SELECT version_num FROM alembic_version")


def open_archive(url: str) -> Archive:
    """Open the archive at `sqlite:///path` or `postgresql://…`, migrating it if it is older.

    Raises:
        ArchiveUnavailableError: no database answers there, within five seconds.
        ArchiveSettingsError: it runs with a setting that would lose what was flushed.
        ArchiveTooNewError: a later version migrated it.
    """
    dialect = _open_dialect(url)
    try:
        dialect.create()
        dialect.check()
        _migrate(dialect)
    except SQLAlchemyError as error:
        dialect.close()
        raise unavailable(dialect, error) from error
    except BaseException:
        dialect.close()
        raise
    return Archive(dialect)


class ArchiveState(msgspec.Struct, frozen=True):
    """The revision an archive is at, None where it is empty, and the one this version knows."""

    found: str | None
    known: str


def probe_archive(url: str) -> ArchiveState:
    """Say what `open_archive` would find, without making or changing anything.

    Raises:
        StorageError: what `open_archive` would raise.
    """
    dialect = _open_dialect(url)
    try:
        found = None
        if dialect.is_there():
            dialect.check()
            with dialect.reader.connect() as connection:
                found = _read_revision(connection)
            _check_known(found)
        return ArchiveState(found, REVISION)
    except SQLAlchemyError as error:
        raise unavailable(dialect, error) from error
    finally:
        dialect.close()


def _open_dialect(url: str) -> Dialect:
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if not path or path == ":memory:":
            raise ArchiveUnavailableError("sqlite:/// needs the path of a file")
        return SqliteDialect(Path(path))
    if scheme in {"postgresql", "postgres"}:
        from storage.postgres import PostgresDialect  # noqa: PLC0415 - slow to import

        return PostgresDialect(f"postgresql://{rest}")
    raise ArchiveUnavailableError(f"{scheme}:// is neither sqlite:/// nor postgresql://")


def _migrate(dialect: Dialect) -> None:
    """Bring the schema to this version's, under the database's migration lock."""
    with dialect.reader.connect() as connection:
        if _read_revision(connection) == REVISION:
            return
    with dialect.writer.begin() as connection:
        dialect.lock_migrations(connection)
        # Another process may have migrated while this one waited.
        found = _read_revision(connection)
        if found == REVISION:
            return
        _check_known(found)
        # Alembic takes a quarter of a second to import: only those who migrate wait for it.
        from storage import migrations  # noqa: PLC0415

        migrations.upgrade(connection)


def _check_known(found: str | None) -> None:
    """Raise ArchiveTooNewError for a revision that this version does not know."""
    if found in {None, REVISION}:
        return
    from storage import migrations  # noqa: PLC0415

    if found not in migrations.known_revisions():
        raise ArchiveTooNewError(found, REVISION)


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(_REVISION)
    return revision
