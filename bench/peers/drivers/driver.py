"""What the generator needs of a protocol: a connection, the bytes of a message, and the acks in bytes."""

import abc
import socket
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from bench.stream import RECEIVE_BYTES
from bench.wire import ANSWER_SECONDS_MAX, WireError

NUMBER = b"##########"
"""Stands in a frame wherever the number of the message goes, as wide as one is."""


class Driver(abc.ABC):
    """One connection, which appends to one stream that no other connection writes to.

    It blocks while it is set up. Then the generator owns the socket, and a driver only looks at bytes.
    """

    pipelines = True
    """Whether a second message may leave before the first one is acknowledged."""

    def __init__(self, url: str, stream: str) -> None:
        """Connect, and set up whatever must be before the first message.

        Raises:
            OSError: Nobody answers there.
            WireError: The peer does not let us.
        """
        self.stream = stream
        self.url = url
        self.out = b""
        """What the protocol wants to be answered beside messages; the generator writes and clears it."""
        self._rest = b""
        self.socket = connect(url)
        try:
            self.set_up()
        except BaseException:
            self.socket.close()
            raise

    def set_up(self) -> None:  # noqa: B027 - some need nothing
        """Say what a connection begins with.

        Raises:
            WireError: The peer refuses.
        """

    @classmethod  # noqa: B027 - most need nothing
    def prepare(cls, url: str, streams: Sequence[str]) -> None:
        """Make what all streams need, once and before the first connection.

        Raises:
            WireError: The peer refuses.
        """

    @abc.abstractmethod
    def frame(self, content: bytes) -> bytes:
        """Return the bytes that append one message; the content holds `NUMBER`, others may too."""

    @abc.abstractmethod
    def count_acks(self, data: bytes) -> int:
        """Return how many messages are acknowledged by what was read, and keep what is incomplete.

        Raises:
            WireError: The peer refused a message, or speaks something else.
        """

    @abc.abstractmethod
    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield what the peer says it stores in this stream: position from 1, and content.

        The connection itself was closed before.

        Raises:
            WireError, OSError: It does not say.
        """


class Lines:
    """A blocking reader of what is made of lines and of blocks of a known length."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def line(self) -> bytes:
        """Return the next line without its end."""
        while b"\r\n" not in self._rest:
            self._receive()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def block(self, size: int) -> bytes:
        """Return so many bytes."""
        while len(self._rest) < size:
            self._receive()
        block, self._rest = self._rest[:size], self._rest[size:]
        return block

    def _receive(self) -> None:
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise WireError("the peer hung up")
        self._rest += received


def connect(url: str) -> socket.socket:
    """Return a connection that blocks."""
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port), ANSWER_SECONDS_MAX)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
