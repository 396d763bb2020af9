"""One connection under load: its session, and everything it sent and was told."""

import time
from array import array

import msgspec

from bench.channel import RECEIVE_BYTES, Channel, user_url
from bench.checker import Findings, Kind, SessionHistory
from bench.protocol import Create, Error, Join, Joined, Leave, Ok
from bench.wire import CLOSE, PING, PONG, TEXT, WireError, client_frame

NUMBER_DIGITS = 10
"""Fixed width, so that all frames of a connection have one length and one prebuilt head."""

CONTENT_BYTES_MIN = 48
"""Below this there is no room for the number that makes each content distinct."""


class _HotAck(msgspec.Struct, tag="ack", gc=False):
    """The fields of an ack that are needed at speed."""

    ref: str
    seq: int
    id: str
    client_id: str


class _HotMessage(msgspec.Struct, tag="message", gc=False):
    """The field of a live message that is needed at speed."""

    seq: int


_decode_hot = msgspec.json.Decoder(_HotAck | _HotMessage | Error).decode


def content_of(number: int, size: int) -> bytes:
    """Return the content of one message: `size` bytes, distinct within its session."""
    head = b'{"n":"%010d","text":"' % number
    return head + b"x" * (size - len(head) - 2) + b'"}'


class Writer:
    """One connection under load, its session, and everything it sent and was told."""

    __slots__ = (
        "_content_bytes", "_frame", "_pending", "_reader", "_socket", "acks", "fileno", "findings",
        "live_seq", "refused", "sent", "session", "started", "user",
    )  # fmt: skip

    def __init__(
        self, url: str, name: str, findings: Findings, *, content_bytes: int, joined: bool
    ) -> None:
        self.session = name
        self.user = name
        self.findings = findings
        self.acks: list[_HotAck] = []
        self.started = array("d")
        self.sent = 0
        self.refused: list[Error] = []
        self.live_seq = 0 if joined else None
        self._content_bytes = content_bytes
        self._frame = self._frame_template()
        self._pending = b""
        channel = Channel(user_url(url, self.user))
        channel.send(Join(ref="j", session=self.session, create=Create(user_id=self.user)))
        channel.wait_for(Joined)
        if not joined:
            channel.send(Leave(ref="l", session=self.session))
            channel.wait_for(Ok)
        self._reader = channel.reader
        self._socket = channel.socket
        self._socket.settimeout(0)
        self.fileno = self._socket.fileno()

    def _frame_template(self) -> bytes:
        number = b"%010d"
        content = content_of(0, self._content_bytes).replace(b"0" * NUMBER_DIGITS, number)
        payload = (
            b'{"type":"send","ref":"%s","session":"%s","client_id":"%s","kind":"text","content":%s}'
        )
        template = payload % (number, self.session.encode(), number, content)
        head = client_frame(template % (0, 0, 0))[: -len(template % (0, 0, 0))]
        return head.replace(b"%", b"%%") + template

    def send(self, count: int) -> None:
        """Put `count` new messages on their way in one write."""
        if count == 0:
            return
        frame = self._frame
        first = self.sent
        self.sent = last = first + count
        out = self._pending + b"".join([frame % (n, n, n) for n in range(first, last)])
        now = time.perf_counter()
        self.started.extend([now] * count)
        self._write(out)

    def _write(self, out: bytes) -> None:
        try:
            written = self._socket.send(out)
        except BlockingIOError:
            written = 0
        self._pending = out[written:]

    def receive(self) -> tuple[float, list[_HotAck]]:
        """Read what has arrived and return when, and the acks in it."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return 0.0, []
        if not data:
            raise WireError(f"{self.session}: the server hung up")
        now = time.perf_counter()
        if self._pending:
            self._write(self._pending)
        acks: list[_HotAck] = []
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                answer = _decode_hot(payload)
                if type(answer) is _HotAck:
                    acks.append(answer)
                elif type(answer) is _HotMessage:
                    self._see_live(answer.seq)
                elif isinstance(answer, Error):
                    self.refused.append(answer)
            elif opcode == PING:
                self._write(self._pending + client_frame(payload, PONG))
            elif opcode == CLOSE:
                raise WireError(f"{self.session}: the server closed: {payload!r}")
        self.acks += acks
        return now, acks

    def _see_live(self, seq: int) -> None:
        if self.live_seq is None or seq != self.live_seq + 1:
            detail = f"the sender at live seq {self.live_seq} was shown {seq}"
            self.findings.add(Kind.REORDERED, self.session, detail)
        self.live_seq = seq

    def history(self) -> SessionHistory:
        """Return what the checker compares with a replay."""
        history = SessionHistory(self.session, self.findings)
        for number in range(self.sent):
            history.send((self.user, f"{number:010}"), content_of(number, self._content_bytes))
        for ack in self.acks:
            history.acknowledge((self.user, ack.client_id), ack.seq, ack.id)
        if self.live_seq is not None and self.live_seq != len(self.acks):
            detail = f"{len(self.acks)} acknowledged, live messages end at {self.live_seq}"
            self.findings.add(Kind.LOST, self.session, detail)
        return history

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
