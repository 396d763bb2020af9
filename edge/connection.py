"""One WebSocket on a socket of its own: non-blocking reads and writes, driven by the pump.

A write goes out at once where nothing waits before it; otherwise the socket is registered for writing
and the pump sends on. While more than `connection_buffer_bytes_max` waits, nothing is read, so a peer
that does not read cannot ask for more. Life: handshake → open → closing → closed; each has its deadline,
checked by `sweep`.
"""

import select
import socket
from collections import Counter

import trio

from edge.auth import Authenticator
from edge.client import Client
from edge.errors import CLOSE_IDLE, EdgeError
from edge.limits import Limits
from edge.origin import OriginPolicy
from edge.websocket import WebSocket, text_frame
from runtime import Host

READ_BYTES = 64 * 1024
"""One read of one connection in one pass; then the others have their turn."""

SEND_BYTES = 256 * 1024
"""Joined for one call; the kernel rarely takes more at once."""

_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT


class Switchboard:
    """What the connections of one pump share."""

    def __init__(
        self, host: Host, auth: Authenticator, origins: OriginPolicy, limits: Limits
    ) -> None:
        self.host = host
        self.auth = auth
        self.origins = origins
        self.limits = limits
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        """By descriptor."""
        self.dirty: list[Connection] = []
        self.now = trio.current_time()
        self.bytes_received = 0
        self.bytes_sent = 0
        self.messages_received = 0
        self.closed_stalled = 0
        self.closed_idle = 0
        self.handshakes_refused = 0
        self.streams = 0
        """WebSockets with tasks of their own (TLS), which are none of `connections`."""
        self.errors: Counter[str] = Counter()
        """Requests and connections that were refused, by error code."""


class Connection:
    """A socket, its protocol state and its client."""

    __slots__ = (
        "_board",
        "_close_at",
        "_descriptor",
        "_eof_sent",
        "_heard_at",
        "_out",
        "_partial",
        "_pinged_at",
        "_progress_at",
        "_queued",
        "_room",
        "_socket",
        "_websocket",
        "buffered",
        "client",
        "closed",
        "interest",
    )

    def __init__(self, board: Switchboard, sock: socket.socket) -> None:
        self._board = board
        self._socket = sock
        self._descriptor = sock.fileno()
        self._websocket = WebSocket(board.limits)
        self._out: list[bytes] = []
        self._partial = False
        self._queued = False
        self._eof_sent = False
        self.interest = _READ
        """The events that it waits for; of others it hears only errors and hang-ups."""
        self._room: trio.Event | None = None
        self._heard_at = self._progress_at = self._pinged_at = board.now
        self._close_at: float | None = None
        self.buffered = 0
        self.client: Client | None = None
        self.closed = False
        board.connections[self._descriptor] = self
        board.poll.register(self._descriptor, _READ)

    # What comes in.

    def handshake(self, head: bytes) -> None:
        """Answer the request for an upgrade; `head` may hold the first frames too."""
        board = self._board
        end = head.index(b"\r\n\r\n") + 4
        self._websocket.receive_handshake(head[:end], board.auth, board.origins)
        self._write_control()
        principal = self._websocket.principal
        if principal is None:
            board.handshakes_refused += 1
            self._start_closing()
            return
        authenticate = board.auth.authenticate_credential
        self.client = Client(board.host, principal, board.limits, self, authenticate, board.errors)
        self.client.open()
        if len(head) > end:
            self._receive(head[end:])

    def on_readable(self) -> None:
        """Read once and handle what came."""
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.lost()
            return
        self._board.bytes_received += len(data)
        self._heard_at = self._board.now
        if self.client is not None:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        websocket = self._websocket
        client = self.client
        assert client is not None
        messages = websocket.receive(data)
        if messages and self._close_at is None:
            self._board.messages_received += len(messages)
            for message in messages:
                client.receive(message)
        if not websocket.involved:
            return
        if websocket.failure is not None and self._close_at is None:
            client.cut(websocket.failure)
            return
        control = websocket.data_to_send()
        if control:
            self._queue_control(control)
        if not websocket.is_open and self._close_at is None:
            self._start_closing()

    # What goes out.

    def write_text(self, payload: bytes) -> None:
        """Queue one text message; nothing after a close frame."""
        if self._close_at is None:
            frame = text_frame(payload)
            self._out.append(frame)
            self.buffered += len(frame)
            if not self._queued:
                self._queued = True
                self._board.dirty.append(self)

    def flush(self) -> None:
        """Send what is queued, unless the socket is full: then the pump sends when it is not."""
        self._queued = False
        if self.closed:
            return
        if not self.interest & _WRITE:
            self._send()
        elif self._is_full():
            # The socket may stay full for long; what is read meanwhile would be answered all the same.
            self._watch(_WRITE)

    def on_writable(self) -> None:
        """The socket takes more."""
        self._send()

    def _send(self) -> None:
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else self._join()
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.lost()
                return
            if sent == self.buffered:
                out.clear()
                self.buffered = 0
                self._partial = False
            else:
                self._keep_from(sent)
            if sent:
                self._board.bytes_sent += sent
                self._progress_at = self._board.now
        if out:
            self._watch(_WRITE if self._is_full() else _READ | _WRITE)
        else:
            if self.interest != _READ:
                self._watch(_READ)
            if self._eof_sent:
                self._shutdown()
        if self._room is not None and self.buffered <= self._low_water:
            self._room.set()
            self._room = None

    def _join(self) -> bytes:
        if self.buffered <= SEND_BYTES:
            return b"".join(self._out)
        size = 0
        for index, frame in enumerate(self._out, 1):
            size += len(frame)
            if size >= SEND_BYTES:
                return b"".join(self._out[:index])
        return b"".join(self._out)

    def _keep_from(self, sent: int) -> None:
        """Forget the first `sent` bytes; the first frame left may have gone in part."""
        self.buffered -= sent
        if not sent:
            return
        out = self._out
        index = 0
        while sent >= len(out[index]):
            sent -= len(out[index])
            index += 1
            self._partial = False
        del out[:index]
        if sent:
            out[0] = out[0][sent:]
            self._partial = True

    def _watch(self, interest: int) -> None:
        if interest != self.interest:
            self.interest = interest
            self._board.poll.modify(self._descriptor, interest)

    def _is_full(self) -> bool:
        return self.buffered > self._board.limits.connection_buffer_bytes_max

    @property
    def _low_water(self) -> int:
        return self._board.limits.connection_buffer_bytes_max // 4

    async def wait_room(self) -> bool:
        """Return True once at most a quarter of the buffer waits, False if the connection is gone."""
        while not self.closed and self._close_at is None:
            if self.buffered <= self._low_water:
                return True
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()
        return False

    # How it ends.

    def close(self, code: int, reason: str) -> None:
        """Close after what is queued; the peer has `close_timeout_seconds` to answer."""
        if self._close_at is None:
            self._websocket.close(code, reason)
            self._write_control()
            self._start_closing()

    def lost(self) -> None:
        """The socket is of no more use."""
        if self.closed:
            return
        self.closed = True
        board = self._board
        board.poll.unregister(self._descriptor)
        del board.connections[self._descriptor]
        self._socket.close()
        self._out.clear()
        if self.client is not None:
            self.client.close()
        if self._room is not None:
            self._room.set()

    def sweep(self) -> None:
        """Keep the deadlines; called about once a second."""
        now = self._board.now
        limits = self._board.limits
        if self._close_at is not None:
            if now >= self._close_at:
                self.lost()
        elif self._out and now - self._progress_at > limits.stall_timeout_seconds:
            self._board.closed_stalled += 1
            self._drop_unsent()
            self._cut(EdgeError("slow_reader", "nothing was read for too long"))
        elif now - self._heard_at > limits.idle_timeout_seconds:
            self._board.closed_idle += 1
            self.close(CLOSE_IDLE, "idle_timeout")
            self.flush()
        elif self.client is not None and (
            refusal := self._board.auth.refusal(self.client.principal)
        ):
            self._cut(refusal)
        elif (
            now - self._heard_at > limits.heartbeat_seconds
            and now - self._pinged_at > limits.heartbeat_seconds
        ):
            self._pinged_at = now
            self._websocket.ping()
            self._write_control()
            self.flush()

    def _cut(self, error: EdgeError) -> None:
        if self.client is not None:
            self.client.cut(error)
        self.flush()

    def _drop_unsent(self) -> None:
        """Keep only the rest of a frame that went in part, so that a close frame can follow it."""
        del self._out[1 if self._partial else 0 :]
        self.buffered = sum(map(len, self._out))

    def _start_closing(self) -> None:
        if self.client is not None:
            self.client.close()
        if self._close_at is None:
            self._close_at = self._board.now + self._board.limits.close_timeout_seconds
        if self._room is not None:
            self._room.set()
            self._room = None

    def _write_control(self) -> None:
        self._queue_control(self._websocket.data_to_send())

    def _queue_control(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if piece:
                self._out.append(piece)
                self.buffered += len(piece)
            else:
                self._eof_sent = True
        if pieces and not self._queued:
            self._queued = True
            self._board.dirty.append(self)

    def _shutdown(self) -> None:
        self._eof_sent = False
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.lost()
