"""The yardstick: the least that a durable WebSocket server in Python must do, and no more.

It says what this machine, this disk and this language allow, so that the rate of the real server can be
given as a share of it. It is no product, and what it acknowledges cannot be had back from it.

What it does, for each text frame::

    unmask ─▶ decode the JSON, once ─▶ length, checksum, text ─┐
                                                               ├─▶ one pwrite, one fdatasync ─▶ an ack each
    whatever else arrives while the disk is busy ──────────────┘   in a thread                  one send a socket

What it leaves out: sessions (a connection counts its own seqs), replay, the archive, following, users and
permissions, checks of what it decodes, repeats by `client_id`, limits, metrics, TLS, HTTP, fragments,
pings, recovery. The file was filled with zeros before, so that a sync waits for data and not for the file
system's books; when it is full, it is written again from its start.

It speaks just enough of ``ringlog.v1`` to be driven by the same generator with the same frames: hello,
join (joined), leave (ok), send (ack). One task on trio drives one epoll set, as the real server does, with
frames cut by hand; the handshake is that of the `websockets` library. ``python -m bench.bare DIRECTORY``
prints its port, and ends when its stdin does.
"""

import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import zlib
from pathlib import Path

import msgspec
import trio
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

from bench.protocol import Ack, Hello, Join, Joined, Leave, Ok, Send, encode
from bench.wire import CLOSE, TEXT

FILE_BYTES = 64 * 1024 * 1024
"""Seconds of load, and zeroed in less than one."""

RECEIVE_BYTES = 64 * 1024
_MASK_BYTES = 4
_RECORD_HEAD = struct.Struct("<II")

_decode = msgspec.json.Decoder(Join | Leave | Send).decode


class Client:
    """One connection: what it sent that is not whole yet, what it was answered, its last seq."""

    __slots__ = ("answers", "is_full", "is_open", "received", "seq", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.is_open = False
        self.is_full = False
        self.received = b""
        self.answers: list[bytes] = []
        self.seq = 0

    def answer(self, answer: msgspec.Struct) -> None:
        """Queue one answer."""
        payload = encode(answer)
        size = len(payload)
        head = bytes((0x80 | TEXT, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2)
        self.answers.append(head + payload)

    def take_frames(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the opcode and the text of each frame that is whole; keep what is left."""
        data = self.received + data
        frames = []
        start, end = 0, len(data)
        while end - start >= 2:
            size, mask = data[start + 1] & 0x7F, start + 2
            if size >= 126:
                mask += 2 if size == 126 else 8
                size = int.from_bytes(data[start + 2 : mask])
            text = mask + _MASK_BYTES
            if text + size > end:
                break
            frames.append(
                (data[start] & 0x0F, apply_mask(data[text : text + size], data[mask:text]))
            )
            start = text + size
        self.received = data[start:]
        return frames


class Bare:
    """The server. Everything but the writing of batches happens on the loop."""

    def __init__(self, listener: socket.socket, file: int) -> None:
        self._listener = listener
        self._file = file
        self._clients: dict[int, Client] = {}
        self._gathered: list[bytes] = []
        self._waiting: list[tuple[Client, Ack]] = []
        self._committing: list[tuple[Client, Ack]] = []
        self._batches: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._error: OSError | None = None
        # What a commit rings: cheaper than trio's own way back from a thread.
        self._committed = os.eventfd(0)
        self._poll = select.epoll()
        for descriptor in (listener.fileno(), self._committed, sys.stdin.fileno()):
            self._poll.register(descriptor, select.EPOLLIN)

    async def run(self) -> None:
        """Serve until stdin ends."""
        threading.Thread(target=self._commit_batches, daemon=True).start()
        while True:
            await trio.lowlevel.wait_readable(self._poll.fileno())
            for descriptor, event in self._poll.poll(0):
                if descriptor == sys.stdin.fileno():
                    return
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == self._committed:
                    self._acknowledge()
                elif client := self._clients.get(descriptor):
                    if event & select.EPOLLOUT:
                        self._write(client)
                    else:
                        self._read(client)
            if self._gathered and not self._committing:
                self._batches.put(b"".join(self._gathered))
                self._committing, self._waiting, self._gathered = self._waiting, [], []

    def _commit_batches(self) -> None:
        """Make batch after batch durable; this is the thread."""
        offset = 0
        while self._error is None:
            batch = self._batches.get()
            if offset + len(batch) > FILE_BYTES:
                offset = 0
            try:
                offset += os.pwrite(self._file, batch, offset)
                os.fdatasync(self._file)
            except OSError as error:
                self._error = error
            os.eventfd_write(self._committed, 1)

    def _acknowledge(self) -> None:
        """Answer everything in the batch that is durable now, with one send for each socket."""
        os.eventfd_read(self._committed)
        if self._error is not None:
            raise self._error
        for client, ack in self._committing:
            client.answer(ack)
        for client in dict.fromkeys(client for client, _ in self._committing):
            self._write(client)
        self._committing = []

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[sock.fileno()] = Client(sock)
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._drop(client)
        elif client.is_open:
            for opcode, text in client.take_frames(data):
                if opcode == TEXT:
                    self._take(client, text)
                elif opcode == CLOSE:
                    self._drop(client)
                    return
            if client.answers:
                self._write(client)
        else:
            self._shake_hands(client, data)

    def _take(self, client: Client, text: bytes) -> None:
        request = _decode(text)
        if isinstance(request, Send):
            client.seq += 1
            self._gathered += (_RECORD_HEAD.pack(len(text), zlib.crc32(text)), text)
            # An id as long as a UUID: the generator has as much to read.
            ack = Ack(request.ref, request.session, client.seq, f"{client.seq:036}")
            ack.client_id = request.client_id
            self._waiting.append((client, ack))
        elif isinstance(request, Join):
            client.answer(Joined(request.ref, request.session, head_seq=client.seq))
        else:
            client.answer(Ok(request.ref))

    def _shake_hands(self, client: Client, data: bytes) -> None:
        """Answer the upgrade, which is expected to come whole and with nothing behind it."""
        protocol = ServerProtocol(subprotocols=[Subprotocol("ringlog.v1")])
        protocol.receive_data(data)
        for request in protocol.events_received():
            assert isinstance(request, Request)
            protocol.send_response(protocol.accept(request))
        client.answers += protocol.data_to_send()
        client.answer(Hello())
        client.is_open = True
        self._write(client)

    def _write(self, client: Client) -> None:
        """Send what is queued; what the socket does not take waits until it does."""
        if client.socket.fileno() < 0:
            return
        out = b"".join(client.answers)
        try:
            sent = client.socket.send(out)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._drop(client)
            return
        client.answers = [out[sent:]] if sent < len(out) else []
        if client.is_full is not bool(client.answers):
            client.is_full = not client.is_full
            events = select.EPOLLIN | (select.EPOLLOUT if client.is_full else 0)
            self._poll.modify(client.socket.fileno(), events)

    def _drop(self, client: Client) -> None:
        descriptor = client.socket.fileno()
        if descriptor >= 0:
            self._poll.unregister(descriptor)
            del self._clients[descriptor]
            client.socket.close()


def main(directory: Path) -> None:
    """Serve on a free port, writing into a new file in `directory`."""
    # Ctrl-C is for whoever started this; what it means here is that stdin ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
        (directory / "bare.log").open("w+b") as file,
    ):
        file.write(bytes(FILE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        listener.settimeout(0)
        print(listener.getsockname()[1], flush=True)
        trio.run(Bare(listener, file.fileno()).run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
