"""The archive of a command that looks at one and must not make one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge.cli.failure import CommandError, ExitCode
from edge.config import Config, shown

if TYPE_CHECKING:
    from storage import Archive


@contextmanager
def open_existing_archive(config: Config) -> "Iterator[Archive]":
    """Open the archive that is there; a mistyped name is an error, not a new archive."""
    from storage import open_archive, probe_archive

    if probe_archive(config.archive).found is None:
        raise CommandError(
            "not_found",
            f"there is no archive yet at {shown(config)['archive']}",
            "name it: --archive URL, or --data DIR",
            ExitCode.NOT_FOUND,
        )
    archive = open_archive(config.archive)
    try:
        yield archive
    finally:
        archive.close()
