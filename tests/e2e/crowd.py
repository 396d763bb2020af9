"""Thousands of WebSocket readers in one thread: they count what they get, and how late it came."""

import json
import selectors
import socket
import time
from dataclasses import dataclass, field

from tests.edge.raw_socket import TEXT, RawSocket, frame

SAMPLED = 10
"""One reader in so many looks into its messages; the others count them."""


class Reader:
    """One connection that follows one session from its end, and reads all it can."""

    def __init__(self, address: str, session: str, *, sampled: bool) -> None:
        self.socket = join(address, session).socket
        self.socket.setblocking(False)
        self.sampled = sampled
        self.messages = 0
        self.closed = False
        self._rest = b""

    def read(self, latencies: list[float]) -> None:
        """Take what has come; the messages carry the time at which they were sent."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.closed = True
            return
        now = time.monotonic()
        data = self._rest + data
        index = 0
        while len(data) - index >= 2:
            length = data[index + 1]
            start = index + 2
            if length == 126:
                length = int.from_bytes(data[index + 2 : index + 4], "big")
                start = index + 4
            if len(data) < start + length:
                break
            if data[index] & 0x0F == TEXT:
                self.messages += 1
                if self.sampled:
                    message = json.loads(data[start : start + length])
                    assert message["seq"] == self.messages
                    latencies.append(now - message["content"]["at"])
            index = start + length
        self._rest = data[index:]


def join(address: str, session: str, last_seq: int | None = None, buffer: int = 0) -> RawSocket:
    """Connect and join; with a small `buffer`, a peer that does not read is felt soon."""
    raw = RawSocket(address, receive_buffer=buffer)
    raw.upgrade("user_id=reader")
    cursor = "" if last_seq is None else f'"last_seq":{last_seq},'
    text = f'{{"type":"join","ref":"j","session":"{session}",{cursor}"create":{{}}}}'
    raw.send(frame(TEXT, text.encode()))
    assert raw.outcome(answers=1).codes == ["joined"]
    return raw


@dataclass
class Crowd:
    """Readers spread over sessions, and one writer to all of these."""

    address: str
    sessions: int
    readers: list[Reader] = field(default_factory=list)
    sent: int = 0

    def gather(self, count: int) -> None:
        """Let `count` readers join, as many for each session."""
        self._selector = selectors.DefaultSelector()
        for number in range(count):
            session = f"crowd-{number % self.sessions}"
            reader = Reader(self.address, session, sampled=number // self.sessions % SAMPLED == 0)
            self.readers.append(reader)
            self._selector.register(reader.socket, selectors.EVENT_READ, reader)
        self._writer = RawSocket(self.address)
        self._writer.upgrade("user_id=writer")
        self._writer.socket.setblocking(False)
        self._selector.register(self._writer.socket, selectors.EVENT_READ)

    def run(self, seconds: float, per_second: float) -> list[float]:
        """Send to the sessions in turn, read everything, and return the latencies seen."""
        latencies: list[float] = []
        end = time.monotonic() + seconds
        send_at = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= send_at:
                send_at += 1 / per_second
                self._send()
            self._read(min(send_at, end) - time.monotonic(), latencies)
        return latencies

    def settle(self, seconds: float = 10.0) -> None:
        """Read until every reader has every message of its session, which must happen in time."""
        wanted = [
            len(range(number % self.sessions, self.sent, self.sessions))
            for number in range(len(self.readers))
        ]
        end = time.monotonic() + seconds
        while [reader.messages for reader in self.readers] != wanted:
            assert time.monotonic() < end, "a reader has missed messages"
            self._read(0.1, [])

    def close(self) -> None:
        for reader in self.readers:
            reader.socket.close()
        self._writer.close()
        self._selector.close()

    def _send(self) -> None:
        session = f"crowd-{self.sent % self.sessions}"
        content = json.dumps({"at": time.monotonic(), "text": "x" * 200})
        text = f'{{"type":"send","session":"{session}","content":{content}}}'
        self._writer.socket.send(frame(TEXT, text.encode()))
        self.sent += 1

    def _read(self, seconds: float, latencies: list[float]) -> None:
        for key, _ in self._selector.select(max(0.0, seconds)):
            if key.data is None:
                self._writer.socket.recv(1 << 16)
            else:
                key.data.read(latencies)
                assert not key.data.closed, "a reader that reads was closed"


def stall(address: str, session: str, last_seq: int | None) -> socket.socket:
    """Join and never read again."""
    return join(address, session, last_seq, buffer=4 * 1024).socket


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
