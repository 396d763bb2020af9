"""A WebSocket that never blocks, for clients that are all about speed."""

import socket
import time
import urllib.parse
from collections.abc import Iterator

from bench.wire import CLOSE, PING, PONG, TEXT, FrameReader, WireError, client_frame, handshake

RECEIVE_BYTES = 64 * 1024
"""Hundreds of messages. For a buffer of 128 KiB or more the C library maps fresh pages at each read: 25 µs."""

_HEAD_END = b"\r\n\r\n"


class FrameStream:
    """One connection: frames are queued and written as the socket takes them, text comes out.

    `connect` does not wait for the answer to the handshake: what is written before that is kept until then.
    """

    __slots__ = ("_head", "_out", "_reader", "_socket", "_waiting", "name", "read_at")

    def __init__(self, sock: socket.socket, reader: FrameReader, name: str) -> None:
        """Take over a connection that was agreed upon, and what was read from it."""
        self.name = name
        self.read_at = 0.0
        """When `read` last had the kernel's bytes in hand."""
        self._reader = reader
        self._socket = sock
        self._socket.settimeout(0)
        self._head: bytes | None = None
        """What has arrived of the answer to the handshake; None once it is whole."""
        self._waiting = b""
        """Frames that wait for that answer."""
        self._out = b""

    @classmethod
    def connect(cls, url: str, name: str) -> "FrameStream":
        """Connect, and ask for the upgrade."""
        parts = urllib.parse.urlsplit(url)
        sock = socket.create_connection((parts.hostname, parts.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = cls(sock, FrameReader(), name)
        stream._head = b""
        stream._send(handshake(parts.netloc, f"{parts.path}?{parts.query}"))
        return stream

    def fileno(self) -> int:
        """Return what to register for polling."""
        return self._socket.fileno()

    def write(self, frames: bytes) -> None:
        """Queue frames, and write what the socket takes."""
        if self._head is None:
            self._send(frames)
        else:
            self._waiting += frames

    def _send(self, out: bytes) -> None:
        out = self._out + out
        try:
            written = self._socket.send(out)
        except BlockingIOError:
            written = 0
        except ConnectionError as error:
            raise WireError(f"{self.name}: {error}") from error
        self._out = out[written:]

    def read(self) -> Iterator[bytes]:
        """Read once and yield the payload of each text frame that is complete.

        Raises:
            WireError: The server hung up, or speaks something else.
        """
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise WireError(f"{self.name}: {error}") from error
        if not data:
            raise WireError(f"{self.name}: the server hung up")
        self.read_at = time.perf_counter()
        if self._out:
            self._send(b"")
        if self._head is not None:
            data = self._take_head(data)
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                yield payload
            elif opcode == PING:
                self._send(client_frame(payload, PONG))
            elif opcode == CLOSE:
                raise WireError(f"{self.name}: the server closed: {payload!r}")

    def _take_head(self, data: bytes) -> bytes:
        """Return what follows the answer to the handshake."""
        assert self._head is not None
        self._head += data
        head, end, rest = self._head.partition(_HEAD_END)
        if not end:
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            raise WireError(f"{self.name}: the upgrade was answered with {head[:300]!r}")
        self._head = None
        waiting, self._waiting = self._waiting, b""
        self._send(waiting)
        return rest

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
