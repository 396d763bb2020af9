"""WebSockets over a trio stream (TLS): the same client code as the pump's, with a task for each side.

::

    reader:  stream → WebSocket → Client
    writer:  what the client and the protocol queued → stream, each piece with a stall deadline
    keeper:  heartbeat, idle, token expiry, the end of a closing handshake

The life of a connection and its limits are those of `edge/connection.py`; what differs is who waits. TLS
records leave no room for a close frame after a stalled write, so a stalled reader is cut without one.
"""

import trio

from edge.client import Client
from edge.connection import Switchboard
from edge.errors import CLOSE_IDLE, CLOSE_RESTART
from edge.websocket import WebSocket, text_frame
from storage import LogPoisonedError

RECEIVE_BYTES = 64 * 1024

SEND_PIECE_BYTES = 64 * 1024
"""What must leave within one stall timeout."""

KEEPER_SECONDS = 1.0
"""How precise the deadlines are: a tenth of the shortest one."""

Stream = trio.SSLStream[trio.SocketStream]


class StreamWebSockets:
    """The WebSockets of this process that have tasks of their own."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._connections: set[StreamConnection] = set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def serve(self, stream: Stream, received: bytes) -> None:
        """Serve one connection, whose upgrade request was read, until it ends."""
        connection = StreamConnection(self._board, stream)
        self._connections.add(connection)
        self._board.streams += 1
        try:
            await connection.run(received)
        finally:
            self._board.streams -= 1
            self._connections.discard(connection)

    async def close_all(self) -> None:
        """Close every connection with 1012 and wait until they are gone; bounded by the close timeout."""
        for connection in self._connections:
            connection.close(CLOSE_RESTART, "shutting_down")
        with trio.move_on_after(self._board.limits.close_timeout_seconds + KEEPER_SECONDS):
            while self._connections:  # noqa: ASYNC110
                await trio.sleep(0.01)


class StreamConnection:
    """One connection: the transport of its client."""

    def __init__(self, board: Switchboard, stream: Stream) -> None:
        self._board = board
        self._stream = stream
        self._websocket = WebSocket(board.limits)
        self._out: list[bytes] = []
        self._queued = trio.Event()
        self._sent = trio.Event()
        self._eof = False
        self._heard_at = self._pinged_at = trio.current_time()
        self._close_at: float | None = None
        self.buffered = 0
        self.client: Client | None = None

    async def run(self, received: bytes) -> None:
        """Serve the connection until it ends; `received` begins with the upgrade request."""
        board = self._board
        end = received.index(b"\r\n\r\n") + 4
        self._websocket.receive_handshake(received[:end], board.auth, board.origins)
        self._queue_control()
        principal = self._websocket.principal
        if principal is None:
            board.handshakes_refused += 1
            await self._send_queued()
            await self._end_stream()
            return
        authenticate = board.auth.authenticate_credential
        self.client = Client(board.host, principal, board.limits, self, authenticate, board.errors)
        self.client.open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_deadlines, nursery.cancel_scope)
                await self._read(received[end:])
                await self._drained()
                nursery.cancel_scope.cancel()
            await self._end_stream()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The peer is gone.
        finally:
            self.client.close()

    # Transport: what the client asks for.

    def write_text(self, payload: bytes) -> None:
        """Queue one text message; nothing after a close frame."""
        if self._close_at is None:
            self._queue(text_frame(payload))

    def flush(self) -> None:
        """Nothing to do: the writer sends what is queued as soon as it runs."""

    def close(self, code: int, reason: str) -> None:
        """Close after what is queued."""
        if self._close_at is None:
            self._websocket.close(code, reason)
            self._queue_control()
            self._start_closing()

    async def wait_room(self) -> bool:
        """Return True once at most a quarter of the buffer waits, False if the connection ends."""
        low_water = self._board.limits.connection_buffer_bytes_max // 4
        while self._close_at is None:
            if self.buffered <= low_water:
                return True
            await self._sent.wait()
        return False

    # The three tasks.

    async def _read(self, received: bytes) -> None:
        """Handle what comes until both sides have closed, or the peer is gone."""
        board = self._board
        data = received or await self._receive()
        while data:
            board.bytes_received += len(data)
            self._heard_at = trio.current_time()
            try:
                self._handle(data)
            except LogPoisonedError:
                return  # The node ends the process; there is nobody to answer.
            if self._eof:
                return
            while self.buffered > board.limits.connection_buffer_bytes_max:
                # A peer that does not read cannot ask for more.
                await self._sent.wait()
            data = await self._receive()

    async def _receive(self) -> bytes:
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))

    def _handle(self, data: bytes) -> None:
        client = self.client
        assert client is not None
        board = self._board
        board.host.tick()
        messages = self._websocket.receive(data)
        if self._close_at is None:
            board.messages_received += len(messages)
            for message in messages:
                client.receive(message)
        if self._websocket.failure is not None and self._close_at is None:
            client.cut(self._websocket.failure)
            return
        self._queue_control()
        if not self._websocket.is_open and self._close_at is None:
            self._start_closing()

    async def _write(self) -> None:
        while True:
            await self._queued.wait()
            self._queued = trio.Event()
            await self._send_queued()

    async def _send_queued(self) -> None:
        """Send all that is queued.

        Raises:
            trio.BrokenResourceError: the peer is gone, or took nothing for too long.
        """
        board = self._board
        while self._out:
            data = b"".join(self._out)
            self._out.clear()
            for start in range(0, len(data), SEND_PIECE_BYTES):
                piece = data[start : start + SEND_PIECE_BYTES]
                with trio.move_on_after(board.limits.stall_timeout_seconds) as stall:
                    await self._stream.send_all(piece)
                if stall.cancelled_caught:
                    board.closed_stalled += 1
                    raise trio.BrokenResourceError("the reader took nothing for too long")
                board.bytes_sent += len(piece)
                self.buffered -= len(piece)
                self._wake_waiters()

    async def _keep_deadlines(self, connection: trio.CancelScope) -> None:
        """Keep the deadlines that are not those of a read or write, until the connection ends."""
        limits = self._board.limits
        client = self.client
        assert client is not None
        while True:
            await trio.sleep(KEEPER_SECONDS)
            now = trio.current_time()
            if self._close_at is not None:
                if now >= self._close_at:
                    connection.cancel()
            elif now - self._heard_at > limits.idle_timeout_seconds:
                self._board.closed_idle += 1
                self.close(CLOSE_IDLE, "idle_timeout")
            elif refusal := self._board.auth.refusal(client.principal):
                client.cut(refusal)
            elif now - max(self._heard_at, self._pinged_at) > limits.heartbeat_seconds:
                self._pinged_at = now
                self._websocket.ping()
                self._queue_control()

    async def _drained(self) -> None:
        """Wait until the writer has sent what is queued, as far as the peer takes it."""
        with trio.move_on_after(self._board.limits.close_timeout_seconds):
            while self.buffered:
                await self._sent.wait()

    async def _end_stream(self) -> None:
        """Half-close, and read on for a moment: closing with unread bytes would reset the connection."""
        transport = self._stream.transport_stream
        with trio.move_on_after(self._board.limits.close_timeout_seconds):
            await transport.send_eof()
            while await transport.receive_some(RECEIVE_BYTES):
                pass

    # What is queued.

    def _queue(self, frame: bytes) -> None:
        self._out.append(frame)
        self.buffered += len(frame)
        self._queued.set()

    def _queue_control(self) -> None:
        for piece in self._websocket.data_to_send():
            if piece:
                self._queue(piece)
            else:
                self._eof = True

    def _start_closing(self) -> None:
        self._close_at = trio.current_time() + self._board.limits.close_timeout_seconds
        if self.client is not None:
            self.client.close()
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        """Let those who wait for room look again: there is more, or there will be none."""
        self._sent.set()
        self._sent = trio.Event()
