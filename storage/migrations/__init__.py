"""The archive's migrations. Importing this package imports Alembic: do so only when it is needed.

An upgrade runs inside the caller's transaction, which holds the database's migration lock, so any
number of processes may start at once: one migrates, the others find nothing to do.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest revision."""
    configuration = _configuration()
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")


def known_revisions() -> frozenset[str]:
    """Return every revision that this version knows."""
    script = ScriptDirectory.from_config(_configuration())
    return frozenset(revision.revision for revision in script.walk_revisions())


def newest_revision() -> str | None:
    """Return the revision that an upgrade leads to."""
    return ScriptDirectory.from_config(_configuration()).get_current_head()


def _configuration() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    return configuration
