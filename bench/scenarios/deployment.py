"""Where a scenario about clusters finds its processes: fresh ones for each measurement, each time on an empty archive."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.cluster import Cluster, ClusterOptions, open_cluster
from bench.environment import SyncLatency, measure_sync_ms
from bench.measurement import Watched
from bench.postgres import DURABLE_SETTINGS, PostgresServer, open_private_postgres
from bench.processes import find_postmaster
from bench.scenarios.run import POSTGRES, OptionsError, RunOptions, fresh_directory
from bench.server import sqlite_url

WAL_FILES = 64
SEASONED_SETTINGS = DURABLE_SETTINGS | {"min_wal_size": "1GB", "max_wal_size": "4GB"}
"""They are kept, and used again; no checkpoint comes in a measurement."""

MakeArchive = Callable[[Path], str]
"""Returns the URL of an archive that nobody has used, for processes below a directory."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one measurement takes place."""

    directory: Path
    archive: str
    sync: SyncLatency
    postmaster_pid: int | None


@contextmanager
def open_archives(options: RunOptions) -> Iterator[MakeArchive]:
    """Start the database server for all measurements, if they are to have one.

    Raises:
        OptionsError: What was asked for cannot be started afresh.
    """
    if options.url is not None or options.archive not in {None, POSTGRES}:
        raise OptionsError(
            f"a cluster is started afresh for each measurement: --archive {POSTGRES} or none"
        )
    if options.archive is None:
        yield sqlite_url
        return
    with open_private_postgres(SEASONED_SETTINGS, parent=options.directory) as postgres:

        def make(_: Path) -> str:
            if postgres.restartable:
                _season(postgres)
            return postgres.url(postgres.create_database())

        yield make


def _season(postgres: PostgresServer) -> None:
    """Give a server of our own the WAL files that one has which has run for a while.

    Making one, 16 MB of zeros and a sync, holds up every COMMIT: 115 ms at p99 in place of 38, measured at 50 × 16 with
    `replicated` durability.
    """
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        made = connection.execute("SELECT to_regclass('filling')").fetchone()
        if made == (None,):
            connection.execute("CREATE TABLE filling (number int)")
            for _ in range(WAL_FILES):
                connection.execute("INSERT INTO filling VALUES (1)")
                connection.execute("SELECT pg_switch_wal()")
        # What is behind it is used again.
        connection.execute("CHECKPOINT")


@contextmanager
def open_place(options: RunOptions, make_archive: MakeArchive) -> Iterator[Place]:
    """Make a directory and an archive, and look at the disk."""
    with fresh_directory(options) as directory:
        archive = make_archive(directory)
        yield Place(directory, archive, measure_sync_ms(directory), find_postmaster(archive))


@asynccontextmanager
async def open_cluster_at(
    place: Place, *, owners: int, edges: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """Start a cluster, and stop it in good order."""
    options = ClusterOptions(place.directory, place.archive, owners, edges, settings or {})
    async with open_cluster(options) as cluster:
        await cluster.start()
        yield cluster
        await cluster.stop()


def watched_cluster(cluster: Cluster, place: Place) -> Watched:
    """Return what can be looked at from outside: the processors. An edge has no log of which its metrics could tell."""
    pids = {f"edge {number} processor": edge.pid for number, edge in enumerate(cluster.edges, 1)}
    pids |= {
        f"owner {number} processor": owner.pid for number, owner in enumerate(cluster.owners, 1)
    }
    return Watched(None, place.postmaster_pid, has_metrics=False, others=pids)
