"""Two PostgreSQL servers, one of which follows the other synchronously, and takes its place when it is killed."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.postgres import (
    DURABLE_SETTINGS,
    PrivatePostgresServer,
    end_with_parent,
    find_binaries,
)

SETTINGS = DURABLE_SETTINGS | {"max_wal_senders": "4", "wal_level": "replica", "hot_standby": "on"}

WAIT_SECONDS = 30.0


class Pair:
    """A primary, and the standby that every COMMIT waits for. Blocking; for one thread that lives as long."""

    def __init__(self, first: PrivatePostgresServer, second: PrivatePostgresServer) -> None:
        self.primary = first
        self.standby = second
        self.failovers = 0

    def url(self, database: str) -> str:
        """Return a URL that leads to whichever can be written to."""
        hosts = ",".join(
            f"127.0.0.1:{port}" for port in sorted((self.primary.port, self.standby.port))
        )
        return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"

    def follow(self) -> None:
        """Make the standby anew from the primary, and have every COMMIT wait for it from then on."""
        self._set_synchronous(self.primary, "")
        data = self.standby.directory / "data"
        shutil.rmtree(data, ignore_errors=True)
        command = [
            str(find_binaries() / "pg_basebackup"),
            "--checkpoint=fast",
            "-R",
            "-D",
            str(data),
        ]
        command += ["-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "postgres"]
        user = self.standby.user
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd="/",
            preexec_fn=end_with_parent,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
        self.standby.start()
        self._set_synchronous(self.primary, "*")
        self._until("sync", "SELECT sync_state FROM pg_stat_replication")

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby; there is none then."""
        os.kill(self.primary.pid, signal.SIGKILL)
        self.primary.stop()
        self.standby.execute("SELECT pg_promote(true, 30)")
        self.primary, self.standby = self.standby, self.primary
        self.failovers += 1

    def _set_synchronous(self, server: PrivatePostgresServer, names: str) -> None:
        server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        server.execute("SELECT pg_reload_conf()")

    def _until(self, wanted: str, question: str) -> None:
        give_up_at = time.monotonic() + WAIT_SECONDS
        while (wanted,) not in self.primary.execute(question):
            if time.monotonic() > give_up_at:
                raise TimeoutError(question)
            time.sleep(0.05)  # noqa: TID251 - a thread of its own


@contextmanager
def open_pair() -> Iterator[Pair]:
    """Run a primary and its standby until the block ends."""
    with ExitStack() as stack:
        servers = []
        for _ in range(2):
            directory = Path(tempfile.mkdtemp(prefix="ringlog-pg-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            servers.append(PrivatePostgresServer(find_binaries(), directory, SETTINGS))
            stack.callback(servers[-1].stop, immediate=True)
        first, second = servers
        first.initialise()
        first.start()
        second.own_directory()
        pair = Pair(first, second)
        pair.follow()
        yield pair
