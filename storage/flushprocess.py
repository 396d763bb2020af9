"""The archive's writer in a process of its own, so that a flush takes next to nothing from the event loop.

Encoding rows and running SQL in a thread beside the loop costs the loop more than their processor time:
each time the thread wants the interpreter's lock, a busy loop gives it up only after a switch interval,
and then waits to have it back. In another process there is no such lock. What is left to the loop is to
encode the records, 0.6 µs each; a thread sends them and waits for the answer, both without the lock.

The flush process (`storage.flushworker`) holds no state that counts: the cursor and the epoch are in the
archive. If it dies, whether its transaction committed is unknown, as it is when a database's connection
dies; the next flush starts another one, and the cursor tells.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

import trio

from storage import flushlink
from storage.errors import ArchiveUnavailableError
from storage.failpoints import armed_failpoint
from storage.flushlink import Flush, Flushed, OpenArchive, Refused
from storage.record import Record

CLOSE_SECONDS = 1.0
"""How long the process may take to end once it is told to."""

NO_PROCESS_HINT = "the system has no process or open file left: raise the limit; it is tried again"
ENDED_HINT = (
    "see the flush process's own last words on stderr; it is started again for the next flush"
)


class FlushProcess:
    """A flush process, started when it is first needed and again whenever it died."""

    def __init__(self, url: str) -> None:
        self.starts = 0
        self._url = url
        self._worker: _Worker | None = None
        # A limiter of its own, so that a flush never waits behind the threads of readers.
        self._limiter = trio.CapacityLimiter(1)

    @property
    def pid(self) -> int | None:
        """Return the process's id, None while there is none."""
        return self._worker.process.pid if self._worker is not None else None

    async def start(self) -> None:
        """Start it, before there is anything to flush.

        Raises:
            ArchiveUnavailableError: the system does not allow another process.
        """
        self._worker = await trio.to_thread.run_sync(_Worker, self._url, limiter=self._limiter)
        self.starts += 1

    async def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        """Do `Archive.flush` over there. Always waits for the outcome, also when cancelled.

        Raises:
            StorageError: as `Archive.flush`; ArchiveUnavailableError also where the process was killed.
            RuntimeError: the process ended by itself, which only a mistake in it can bring about.
        """
        if self._worker is None:
            with trio.CancelScope(shield=True):
                await self.start()
        assert self._worker is not None
        request = flushlink.encode(Flush(node_id, epoch, cursor, records))
        try:
            reply = await trio.to_thread.run_sync(self._worker.ask, request, limiter=self._limiter)
        except (OSError, EOFError) as error:
            raise _meaning(await self.close()) from error
        if isinstance(reply, Refused):
            raise flushlink.refusal(reply)

    async def close(self) -> int | None:
        """End the process; return its exit code, None if there was none."""
        worker, self._worker = self._worker, None
        if worker is None:
            return None
        exit_code: int
        with trio.CancelScope(shield=True):
            exit_code = await trio.to_thread.run_sync(worker.close, limiter=self._limiter)
        return exit_code


class _Worker:
    """One life of the process, and the server's end of its socket. Blocking."""

    def __init__(self, url: str) -> None:
        try:
            self._link, theirs = socket.socketpair()
        except OSError as error:
            raise _no_process(error) from error
        # `-P`: a directory named `storage` where the server was started is not this package.
        command = [sys.executable, "-P", "-m", "storage.flushworker", str(theirs.fileno())]
        if armed := armed_failpoint():
            command.append(armed)
        try:
            with theirs:
                self.process = subprocess.Popen(  # noqa: S603 - ourselves
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # A group of its own: Ctrl-C is for the server. No session of its own, which Linux
                    # would give as much of the processors as all of the server (autogroups).
                    process_group=0,
                )
        except OSError as error:
            self._link.close()
            raise _no_process(error) from error
        self._stream: BinaryIO = self._link.makefile("rb")
        with suppress(OSError):  # who asks it will see that it ended
            self._link.sendall(flushlink.encode(OpenArchive(url)))

    def ask(self, request: bytearray) -> Flushed | Refused:
        """Send a request and return what it came to.

        Raises:
            OSError, EOFError: the process has ended.
        """
        self._link.sendall(request)
        return flushlink.decode_reply(flushlink.receive(self._stream))

    def close(self) -> int:
        """End it, and return its exit code."""
        self._stream.close()
        self._link.close()
        try:
            return self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _no_process(error: OSError) -> ArchiveUnavailableError:
    return ArchiveUnavailableError(f"no flush process: {error.strerror}", NO_PROCESS_HINT)


def _meaning(exit_code: int | None) -> Exception:
    """Return what the end of a process means for the flush that it was asked for."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return ArchiveUnavailableError(f"the flush process was ended by {name}", ENDED_HINT)
    return RuntimeError(f"the flush process ended by itself, with exit code {exit_code}")


@asynccontextmanager
async def open_flush_process(url: str) -> AsyncIterator[FlushProcess]:
    """Start a flush process for the archive at `url`, which is migrated; end it with the block."""
    process = FlushProcess(url)
    try:
        await process.start()
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await process.close()
