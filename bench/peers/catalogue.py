"""The peers: how each is found, started and told to sync before it acknowledges."""

import abc
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

from bench.peers.program import (
    NotInstalledError,
    PeerError,
    Running,
    Site,
    ask_version,
    find_installed,
    find_program,
    open_program,
    wait_listening,
)
from bench.postgres import (
    DURABLE_SETTINGS,
    PostgresError,
    PostgresNotFoundError,
    find_binaries,
    open_private_postgres,
)
from bench.server import ServerError, ServerOptions, free_port, open_server, sqlite_url

_HERE = Path(__file__).parent

_NATS_CONFIG = """\
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{directory}", sync_interval: always }}
"""

_RAKAIA = """\
import sys, uvicorn
from rakaia import create_app
from rakaia.jsonl_store import JsonlStreamStore
app = create_app(store=JsonlStreamStore(sys.argv[2]))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


class Peer(abc.ABC):
    """One kind of server."""

    name: str
    driver: str
    note: str
    """What it does and does not do, and what an ack of it means."""
    pipelines = True
    """Whether a connection may have several messages on the way."""

    @abc.abstractmethod
    def version(self) -> str:
        """Return which one is installed.

        Raises:
            NotInstalledError: None is.
        """

    @abc.abstractmethod
    def open(self, site: Site) -> AbstractAsyncContextManager[Running]:
        """Run it until the block ends.

        Raises:
            PeerError: It does not start.
        """


class CommandPeer(Peer):
    """A peer that is one program, listening at one port."""

    @abc.abstractmethod
    def command(self, directory: Path, port: int) -> list[str]:
        """Return what to run."""

    @asynccontextmanager
    async def open(self, site: Site) -> AsyncIterator[Running]:
        """Run the program until the block ends."""
        port = free_port()
        command = [*site.prefix, *self.command(site.directory, port)]
        with open_program(command, site.directory) as process:
            await wait_listening(process, port, site.directory)
            yield Running(f"tcp://127.0.0.1:{port}", (process.pid,))


class Redis(CommandPeer):
    """Redis Streams."""

    name = "redis"
    driver = "redis"
    note = (
        "Streams, XADD, appendfsync always. Raw entries: no sessions, users, permissions, live"
        " protocol or repeats by key. All clients of one turn of its loop share a sync."
    )

    def version(self) -> str:
        """Return the version of the server on PATH."""
        words = ask_version(self._program(), "--version").split("v=")
        return words[-1].split()[0]

    def command(self, directory: Path, port: int) -> list[str]:
        """Return a Redis that syncs its log before it answers."""
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return [self._program(), *options]

    def _program(self) -> str:
        return find_program("redis-server", "apt-get install redis-server")


class Gateway(Redis):
    """A WebSocket server before a Redis."""

    name = "redis-gateway"
    driver = "gateway"
    note = (
        "the same Redis behind a WebSocket server of 40 lines on Node (ws, ioredis), which is"
        " what one would write. Appends and replays; no users, permissions, limits, live messages."
    )

    def version(self) -> str:
        """Return the versions of both."""
        node = find_program("node", "apt-get install nodejs")
        packages = ", ".join(f"{name} {_node_version(name)}" for name in ("ws", "ioredis"))
        return f"{super().version()}, node {ask_version(node, '--version')[1:]}, {packages}"

    @asynccontextmanager
    async def open(self, site: Site) -> AsyncIterator[Running]:
        """Run both until the block ends."""
        async with super().open(site) as redis:
            port, redis_port = free_port(), redis.url.rpartition(":")[2]
            command = _node("gateway.mjs", str(port), redis_port)
            with open_program([*site.prefix, *command], site.directory) as process:
                await wait_listening(process, port, site.directory)
                yield Running(f"ws://127.0.0.1:{port}/", (process.pid, *redis.pids))


class Postgres(Peer):
    """PostgreSQL, one statement for each message."""

    name = "postgres"
    driver = "postgres"
    note = (
        "one statement bumps the session's head row and inserts the message; otherwise as installed."
        " Ordered sessions, and readers that poll: nobody is told of a message."
    )

    def version(self) -> str:
        """Return the version of the server that would run."""
        try:
            return ask_version(str(find_binaries() / "postgres"), "--version").split()[2]
        except PostgresNotFoundError:
            raise NotInstalledError("apt-get install postgresql") from None

    @asynccontextmanager
    async def open(self, site: Site) -> AsyncIterator[Running]:
        """Run a private server until the block ends."""
        spare = 10
        settings = DURABLE_SETTINGS | {"max_connections": str(site.connections + spare)}
        with ExitStack() as stack:
            try:
                server = stack.enter_context(
                    open_private_postgres(settings, parent=site.directory, prefix=site.prefix)
                )
            except (OSError, PostgresError) as error:
                raise PeerError(str(error)) from error
            yield Running(server.url("postgres"), (server.pid,))


class PostgresNotify(Postgres):
    """The same with a notification."""

    name = "postgres-notify"
    driver = "postgres-notify"
    note = (
        "the same, and pg_notify in the same transaction, so that listeners hear of it. Commits"
        " that notify take one lock for the whole server."
    )


class Nats(CommandPeer):
    """NATS JetStream."""

    name = "nats"
    driver = "nats"
    note = (
        "JetStream with sync_interval always (by default it acknowledges before it syncs), a stream for each"
        " session. A sync for each message. Sessions by name, replay, consumers; users by configuration."
    )

    def version(self) -> str:
        """Return the version that is installed."""
        return ask_version(self._program(), "--version").rpartition("v")[2]

    def command(self, directory: Path, port: int) -> list[str]:
        """Return a server with its settings in a file."""
        config = directory / "nats.conf"
        config.write_text(_NATS_CONFIG.format(port=port, directory=directory / "jetstream"))
        return [self._program(), "-c", str(config)]

    def _program(self) -> str:
        return str(find_installed("venv/bin/nats-server"))


class DurableStreams(CommandPeer):
    """The reference server of the Durable Streams protocol."""

    name = "durable-streams"
    driver = "http"
    pipelines = False
    note = (
        "the protocol's reference server on Node with its data in files. HTTP: a connection has"
        " one message on the way. Streams by offset, idempotent producers, live reads; no users or permissions. With 128"
        " connections it was seen to answer 404 for streams that exist: such a run has failed."
    )

    def version(self) -> str:
        """Return the version that is installed."""
        find_program("node", "apt-get install nodejs")
        return _node_version("@durable-streams/server")

    def command(self, directory: Path, port: int) -> list[str]:
        """Return a server with its data in files, which it syncs for each append."""
        return _node("durable_streams.mjs", str(port), str(directory / "streams"))


class Rakaia(CommandPeer):
    """A server of the same protocol in Python."""

    name = "rakaia"
    driver = "http"
    pipelines = False
    note = (
        "a Durable Streams server in Python (ASGI on uvicorn with uvloop and httptools), its JSONL store"
        " synced for each append. HTTP: a connection has one message on the way."
    )

    def version(self) -> str:
        """Return the version that is installed."""
        found = next(find_installed("venv").glob("lib/*/site-packages/rakaia_streams-*"), None)
        if found is None:
            raise NotInstalledError("bench/peers/install.sh")
        return found.name.split("-")[1].removesuffix(".dist")

    def command(self, directory: Path, port: int) -> list[str]:
        """Return a server on uvicorn."""
        python = find_installed("venv/bin/python")
        return [str(python), "-c", _RAKAIA, str(port), str(directory / "streams")]


class Ringlog(Peer):
    """What the others are compared with."""

    name = "ringlog"
    driver = "ringlog"
    note = (
        "WebSocket, users, ordered sessions, replay, live messages, an archive in SQL. An ack means that"
        " the commit log was synced; the archive follows, and its syncs are counted too."
    )

    def version(self) -> str:
        """Return which one it is; the environment names the commit."""
        return "this checkout"

    @asynccontextmanager
    async def open(self, site: Site) -> AsyncIterator[Running]:
        """Run the server of this checkout until the block ends."""
        options = ServerOptions(
            site.directory, sqlite_url(site.directory), prefix=tuple(site.prefix)
        )
        async with open_server(options) as server:
            try:
                await server.start()
            except ServerError as error:
                raise PeerError(str(error)) from error
            yield Running(server.url, (server.pid,))


PEERS: tuple[Peer, ...] = (
    Redis(),
    Gateway(),
    Postgres(),
    PostgresNotify(),
    Nats(),
    DurableStreams(),
    Rakaia(),
)


def _node(script: str, *arguments: str) -> list[str]:
    modules = str(find_installed("node_modules"))
    return ["node", str(_HERE / script), modules, *arguments]


def _node_version(package: str) -> str:
    found = find_installed(f"node_modules/{package}/package.json")
    return str(json.loads(found.read_text())["version"])
