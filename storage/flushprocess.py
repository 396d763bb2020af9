"""The archive's writer in a process of its own, so that a flush takes nothing from the event loop.

Encoding rows and running SQL in a thread beside the loop costs the loop more than their processor time:
each time the thread wants the interpreter's lock, a busy loop gives it up only after a switch interval,
and then waits to have it back. In another process there is no such lock; what is left to the loop is to
encode records for a socket, a few hundred at a time.

The flush process (`storage.flushworker`) holds no state that counts: the cursor and the epoch are in the
archive. If it dies, whether its transaction committed is unknown, as it is when a database's connection
dies; the next flush starts another one, and the cursor tells.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from storage import flushlink
from storage.errors import ArchiveUnavailableError
from storage.flushlink import Flush, OpenArchive, Refused
from storage.record import Record

PIECE_ROWS = 250
"""Records in one message: their encoding keeps the loop for 0.1 ms."""

CLOSE_SECONDS = 1.0
"""How long the process may take to end once it is told to."""

HINT = "see the flush process's own last words on stderr; it is started again for the next flush"


class FlushProcess:
    """A flush process, started when it is first needed and again whenever it died."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: trio.Process | None = None
        self._link: trio.SocketStream | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Return the process's id, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it, before there is anything to flush.

        Raises:
            ArchiveUnavailableError: the system does not allow another process.
        """
        ours, theirs = socket.socketpair()
        self._link = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        # `-P`: a directory named `storage` where the server was started is not this package.
        command = [sys.executable, "-P", "-m", "storage.flushworker", str(theirs.fileno())]
        try:
            with theirs:
                self._process = await trio.lowlevel.open_process(
                    command, pass_fds=[theirs.fileno()], start_new_session=True
                )
        except OSError as error:
            self._link.socket.close()
            self._link = None
            raise ArchiveUnavailableError(f"no flush process: {error.strerror}", HINT) from error
        self.starts += 1
        await self._link.send_all(flushlink.encode(OpenArchive(self._url)))

    async def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        """Do `Archive.flush` over there. Always waits for the outcome, also when cancelled.

        Raises:
            StorageError: as `Archive.flush`; ArchiveUnavailableError also where the process was killed.
            RuntimeError: the process ended by itself, which only a mistake in it can bring about.
        """
        with trio.CancelScope(shield=True):
            try:
                if self._link is None:
                    await self.start()
                reply = await self._ask(Flush(node_id, epoch, cursor, len(records)), records)
            except (trio.BrokenResourceError, EOFError) as error:
                raise await self._explain_end() from error
        if isinstance(reply, Refused):
            raise flushlink.refusal(reply)

    async def close(self) -> None:
        """End the process."""
        if self._link is not None:
            self._link.socket.close()
            self._link = None
        if self._process is not None:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(CLOSE_SECONDS):
                    await self._process.wait()
                self._process.kill()
                await self._process.wait()
            self._process = None

    async def _ask(self, request: Flush, records: Sequence[Record]) -> flushlink.Flushed | Refused:
        assert self._link is not None
        await self._link.send_all(flushlink.encode(request))
        for start in range(0, len(records), PIECE_ROWS):
            piece = records[start : start + PIECE_ROWS]
            await self._link.send_all(flushlink.encode(piece))
        head = await self._receive(flushlink.LENGTH_BYTES)
        return flushlink.decode_reply(await self._receive(flushlink.decode_length(head)))

    async def _receive(self, size: int) -> bytes:
        assert self._link is not None
        data = b""
        while len(data) < size:
            piece = await self._link.receive_some(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    async def _explain_end(self) -> Exception:
        """Collect a process that is gone; return what that means for its last flush."""
        process = self._process
        await self.close()
        code = process.returncode if process is not None else None
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return ArchiveUnavailableError(f"the flush process was ended by {name}", HINT)
        return RuntimeError(f"the flush process ended by itself, with exit code {code}")


@asynccontextmanager
async def open_flush_process(url: str) -> AsyncIterator[FlushProcess]:
    """Start a flush process for the archive at `url`, which is migrated; end it with the block."""
    process = FlushProcess(url)
    try:
        await process.start()
        yield process
    finally:
        await process.close()
