"""WebSocket peers: Ringlog itself, and the gateway before a Redis.

Both answer a message with an ack that names its `ref`, which is the message's number, in the order of the
messages. An ack that names another one is an error here, so the count of acks says which messages they were.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from bench.channel import Channel, user_url
from bench.peers.drivers.driver import NUMBER, Driver, Lines
from bench.protocol import Create, Join, Joined, Leave, Ok
from bench.wire import CLOSE, PING, PONG, TEXT, FrameReader, WireError, client_frame, handshake


class WebSocketDriver(Driver):
    """What the two have in common."""

    ack_head = b""
    """How the ack of message `NUMBER` begins."""

    def set_up(self) -> None:
        """Ask for the upgrade."""
        self._reader = FrameReader()
        self._acked = 0
        parts = urlsplit(self.url)
        lines = Lines(self.socket)
        self.socket.sendall(handshake(parts.netloc, parts.path or "/"))
        status = lines.line()
        if not status.startswith(b"HTTP/1.1 101"):
            raise WireError(f"{self.stream}: the upgrade was answered with {status!r}")
        while lines.line():
            pass

    def count_acks(self, data: bytes) -> int:
        """Count acks, which come in the order of the messages."""
        before = self._acked
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                if not payload.startswith(self.ack_head.replace(NUMBER, b"%010d" % self._acked)):
                    raise WireError(f"{self.stream}: no ack of {self._acked}: {payload[:200]!r}")
                self._acked += 1
            elif opcode == PING:
                self.out += client_frame(payload, PONG)
            elif opcode == CLOSE:
                raise WireError(f"{self.stream}: the server closed: {payload!r}")
        return self._acked - before


class GatewayDriver(WebSocketDriver):
    """One connection to the gateway."""

    ack_head = b'{"ref":"' + NUMBER + b'","id":"'

    def frame(self, content: bytes) -> bytes:
        """Return one message."""
        payload = b'{"ref":"%b","session":"%b","content":%b}'
        return client_frame(payload % (NUMBER, self.stream.encode(), content))

    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield what a new connection is shown of the session."""
        again = GatewayDriver(self.url, self.stream)
        with again.socket as sock:
            sock.sendall(client_frame(b'{"replay":"%b"}' % self.stream.encode()))
            position = 0
            while True:
                data = sock.recv(1 << 18)
                if not data:
                    raise WireError(f"{self.stream}: the gateway hung up in a replay")
                for _, payload in again._reader.feed(data):
                    if payload == b"{}":
                        return
                    position += 1
                    yield position, payload


class RinglogDriver(WebSocketDriver):
    """One connection to Ringlog, with a session that it does not follow."""

    ack_head = b'{"type":"ack","ref":"' + NUMBER + b'"'

    def set_up(self) -> None:
        """Make the session, and do not follow it."""
        self._acked = 0
        self.socket.close()
        channel = Channel(user_url(self.url, self.stream))
        channel.send(Join(ref="j", session=self.stream, create=Create(user_id=self.stream)))
        channel.wait_for(Joined)
        channel.send(Leave(ref="l", session=self.stream))
        channel.wait_for(Ok)
        self._reader = channel.reader
        self.socket = channel.socket

    def frame(self, content: bytes) -> bytes:
        """Return one send."""
        payload = (
            b'{"type":"send","ref":"%b","session":"%b","client_id":"%b","kind":"text","content":%b}'
        )
        return client_frame(payload % (NUMBER, self.stream.encode(), NUMBER, content))

    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield a replay from the beginning, over a new connection."""
        channel = Channel(user_url(self.url, self.stream))
        with channel.socket:
            for message in channel.replay(self.stream):
                yield message.seq, message.content
