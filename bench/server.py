"""A real ``ringlog serve`` as a child process that may be killed and started again.

The port is chosen once and kept, so that clients find the server again after a crash. What the
server prints goes to ``server.log`` beside its data directory, all runs in one file.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO

import trio

from bench.processes import family

READY_SECONDS_MAX = 30.0
"""Recovery of a few segments takes well below a second; a slow disk gets the rest."""

READY_POLL_SECONDS = 0.02
"""How finely a start is timed."""

WATCH_SECONDS = 0.1
"""How soon a process that follows another is watched."""

STOP_SECONDS_MAX = 60.0
"""A graceful stop may flush up to 256 MiB before it exits."""

LOG_TAIL_BYTES = 4000
"""How much of the log an error shows."""


_REPOSITORY = Path(__file__).parent.parent
_RINGLOG = (sys.executable, "-m", "edge")


async def connect_loopback(port: int) -> trio.SocketStream:
    """Connect to a server on this machine."""
    return await trio.open_tcp_stream("127.0.0.1", port)


class ServerError(Exception):
    """The server did not start, or did not stop as it should; the end of its log is the message."""

    def __init__(self, what: str, log: Path) -> None:
        tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""
        super().__init__(f"{what}; {log} ends with:\n{tail}")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where a server keeps its things, and what else it is told."""

    directory: Path
    archive: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """More options, by the name of the flag without its dashes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More of its environment; directories in `PYTHONPATH` come before this checkout."""
    prefix: Sequence[str] = ()
    """The command that it is started with, as a tracer that leaves it its process id."""
    command: str = "serve"
    """Or `up`: a whole cluster, of which the first edge is what `url` leads to."""
    connect: Callable[[int], Awaitable[trio.SocketStream]] = connect_loopback
    """Connects to its port, to see whether it is ready: it may have a loopback of its own."""


def sqlite_url(directory: Path) -> str:
    """Return the archive that a server keeps for itself."""
    return f"sqlite:///{directory / 'archive.db'}"


class Server:
    """One server, through all its lives."""

    def __init__(self, options: ServerOptions, log: IO[bytes]) -> None:
        self._options = options
        self._log = log
        self._process: trio.Process | None = None
        self._ending: trio.Process | None = None
        """One that is to end, or did: nobody may be surprised."""
        self._port = free_port()
        self.url = f"ws://127.0.0.1:{self._port}/v1/ws"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self._options.directory / "data"

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    async def spawn(self, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start a process, this time with more in its environment; it is not ready yet."""
        assert self._process is None
        command = [
            *self._options.prefix,
            *_RINGLOG,
            self._options.command,
            f"--listen=127.0.0.1:{self._port}",
            f"--data={self.data}",
            f"--archive={self._options.archive}",
            *(f"--{name}={value}" for name, value in self._options.settings.items()),
        ]
        self._process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=_environment({**self._options.environment, **environment}),
            cwd=self._options.directory,
            # Ctrl-C is for us, who end it as we have to: not for all processes of the terminal at once.
            process_group=0,
        )

    async def wait_ready(self) -> None:
        """Return when ``/readyz`` says so.

        Raises:
            ServerError: The process ended, or took too long.
        """
        with trio.move_on_after(READY_SECONDS_MAX):
            while not await self._is_ready():
                if self._process is None or self._process.poll() is not None:
                    raise self._error("the server ended before it was ready")
                await trio.sleep(READY_POLL_SECONDS)
            return
        raise self._error(f"the server was not ready after {READY_SECONDS_MAX:.0f} s")

    async def start(self) -> None:
        """Start a process and wait until it is ready."""
        await self.spawn()
        await self.wait_ready()

    async def kill(self) -> None:
        """End the process at once, as a crash would: SIGKILL.

        Raises:
            ServerError: It had ended by itself before.
        """
        process = self._let_end()
        ended = process.poll()
        process.kill()
        await process.wait()
        if ended is not None:
            raise self._error(f"the server exited with {ended} before it was killed")

    async def crash(self) -> None:
        """Kill the process, and start another one."""
        await self.kill()
        await self.start()

    async def wait_ended(self, seconds: float) -> int:
        """Wait for a process that ends by itself, and return its exit code.

        Raises:
            ServerError: It did not end in time.
        """
        process = self._let_end()
        with trio.move_on_after(seconds):
            return await process.wait()
        process.kill()
        await process.wait()
        raise self._error(f"the server did not end by itself within {seconds} s")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process gracefully: by this signal, and it must exit with 0.

        Raises:
            ServerError: It exited with something else, or did not exit.
        """
        process = self._let_end()
        process.send_signal(number)
        with trio.move_on_after(STOP_SECONDS_MAX) as deadline:
            await process.wait()
        if deadline.cancelled_caught:
            process.kill()
            await process.wait()
            raise self._error(f"the server did not stop within {STOP_SECONDS_MAX:.0f} s")
        if process.returncode != 0:
            raise self._error(f"the server exited with {process.returncode} when told to stop")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Cancel the block as soon as a process ends that nobody told to.

        Raises:
            ServerError: That happened; clients would knock in vain for ever.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _find_reason(group) or group from None

    async def _watch(self) -> None:
        while True:
            process = self._process
            if process is not None:
                await process.wait()
                if self._process is process:
                    raise self._error(f"the server exited by itself with {process.returncode}")
            await trio.sleep(WATCH_SECONDS)

    async def abandon(self) -> None:
        """Leave no process behind, whatever state it is in."""
        for process in (self._process, self._ending):
            if process is not None:
                _kill_family(process)
                await process.wait()

    def _let_end(self) -> trio.Process:
        assert self._process is not None
        self._ending, self._process = self._process, None
        return self._ending

    async def fetch(self, path: str) -> bytes:
        """Return all that it answers to a GET: head and body."""
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nConnection: close\r\n\r\n"
        )
        async with await self._options.connect(self._port) as stream:
            await stream.send_all(request.encode())
            return b"".join([data async for data in stream])

    async def _is_ready(self) -> bool:
        request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n"
        try:
            async with await self._options.connect(self._port) as stream:
                await stream.send_all(request % self._port)
                status = await stream.receive_some(64)
        except (OSError, trio.BrokenResourceError):
            return False
        return status.startswith(b"HTTP/1.1 200")

    def _error(self, what: str) -> ServerError:
        return ServerError(what, Path(self._log.name))


@asynccontextmanager
async def open_server(options: ServerOptions) -> AsyncIterator[Server]:
    """Make a server that is not started yet; nothing of it is left running afterwards."""
    with (options.directory / "server.log").open("ab") as log:
        server = Server(options, log)
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await server.abandon()


def end_on_sigterm() -> None:
    """Make SIGTERM end this program like Ctrl-C, so that the server goes with it.

    Trio knows how to deliver SIGINT; it is set first, for a shell may have started us to ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _kill_family(process: trio.Process) -> None:
    """Kill a process and all that it started; whoever restarts what ends must not get the chance."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGSTOP)
    started = family(process.pid)[1:]
    process.kill()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _find_reason(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return what started it all, in a group of errors of which the rest are consequences."""
    for error in group.exceptions:
        if isinstance(error, ServerError | KeyboardInterrupt):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := _find_reason(error)):
            return found
    return None


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return what a server inherits.

    It is the server of this checkout, whichever is installed, and it has the options that were given
    and no other. Compiled modules are kept: to compile them anew would be most of every start.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RINGLOG_") and name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    }
    path = [more["PYTHONPATH"]] if "PYTHONPATH" in more else []
    return inherited | dict(more) | {"PYTHONPATH": os.pathsep.join([*path, str(_REPOSITORY)])}


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
