"""The server side of one WebSocket, sans I/O: bytes in, whole text messages out.

`websockets`' `ServerProtocol` does the handshake, the framing and the closing. What it leaves to us is
here: reassembly with a cap on fragments, a cap on pongs, silence after our close frame. Text frames are
written past it (`text_frame`), because building them through it costs more than the frame is worth.
"""

import logging

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from edge.auth import Authenticator, Principal
from edge.errors import EdgeError
from edge.handshake import accept_upgrade
from edge.limits import Limits
from edge.origin import OriginPolicy

_TEXT = Opcode.TEXT
_CONT = Opcode.CONT
_BINARY = Opcode.BINARY
_PING = Opcode.PING

_LOGGER = logging.getLogger("ringlog.websocket")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False


def _text_header(length: int) -> bytes:
    # RFC 6455 §5.2: FIN and opcode 1; a server does not mask.
    if length < 126:
        return bytes((0x81, length))
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


_SHORT_HEADERS = tuple(_text_header(length) for length in range(2_048))


def text_frame(payload: bytes) -> bytes:
    """Return one unfragmented text frame."""
    length = len(payload)
    return (_SHORT_HEADERS[length] if length < 2_048 else _text_header(length)) + payload


class WebSocket:
    """One connection's protocol state: in its handshake until `principal` is known."""

    __slots__ = ("_fragments", "_limits", "_protocol", "principal", "refused")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._protocol = ServerProtocol(max_size=limits.message_bytes_max, logger=_LOGGER)
        self._fragments: list[bytes] | None = None
        self.principal: Principal | None = None
        self.refused = False

    def receive_handshake(self, data: bytes, auth: Authenticator, origins: OriginPolicy) -> None:
        """Take the head of the request; afterwards either `principal` or `refused` is set."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self.principal = accept_upgrade(self._protocol, event, auth, origins)
        self.refused = self.principal is None

    def receive(self, data: bytes) -> list[bytes]:
        """Take what came and return the text messages that are complete.

        Raises:
            EdgeError: binary_frame, too_many_fragments, rate_limited; the connection should be cut.
        """
        protocol = self._protocol
        protocol.receive_data(data)
        messages: list[bytes] = []
        pings = 0
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            opcode = event.opcode
            if opcode is _TEXT and event.fin:
                messages.append(bytes(event.data))
            elif opcode is _TEXT:
                self._fragments = [bytes(event.data)]
            elif opcode is _CONT:
                self._continue(event, messages)
            elif opcode is _BINARY:
                raise EdgeError("binary_frame", "binary frames are not spoken here")
            elif opcode is _PING:
                pings += 1
                if pings > self._limits.pongs_max:
                    raise EdgeError("rate_limited", f"more than {pings} pings at once")
        return messages

    def _continue(self, frame: Frame, messages: list[bytes]) -> None:
        fragments = self._fragments
        assert fragments is not None
        fragments.append(bytes(frame.data))
        if frame.fin:
            messages.append(b"".join(fragments))
            self._fragments = None
        elif len(fragments) >= self._limits.fragments_max:
            raise EdgeError(
                "too_many_fragments",
                f"a message in more than {self._limits.fragments_max} fragments",
                fragments_max=self._limits.fragments_max,
            )

    def receive_eof(self) -> None:
        """The peer will send nothing more."""
        self._protocol.receive_eof()

    @property
    def is_open(self) -> bool:
        """Whether text frames may be sent and received."""
        return self._protocol.state is OPEN

    def ping(self) -> None:
        """Queue a ping."""
        self._protocol.send_ping(b"")

    def close(self, code: int, reason: str) -> None:
        """Queue a close frame, unless the connection is closing already."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)

    def data_to_send(self) -> list[bytes]:
        """Return what the protocol itself has queued; an empty piece means: end the stream."""
        return self._protocol.data_to_send()
