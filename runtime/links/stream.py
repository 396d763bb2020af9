"""One connection between two nodes, from its handshake to its end: frames in, frames out.

What there is to send is gathered and leaves together: `send` only queues, and one task writes whatever came
meanwhile. So a commit that answers fifty clients of one edge is one write, as is what one pass over the edge's
sockets has read.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec
import trio

from runtime.links import messages
from runtime.links.handshake import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Greeting,
    HandshakeError,
    Proof,
    Refusal,
    Welcome,
    prove,
    read_greeting,
    read_proof,
    read_welcome,
)
from runtime.links.messages import PIECE_BYTES, Beat, FrameBuffer, FrameError

T = TypeVar("T")

READ_BYTES = 256 * 1024

BEAT_SECONDS = 1.0
"""A side that has had nothing to say for so long says that it lives."""

SILENT_SECONDS = 4.0
"""A link on which nothing comes for so long is given up: four beats."""

HANDSHAKE_SECONDS = 5.0

REFUSAL_SECONDS = 1.0
"""How long is tried to tell the other side why it was refused."""

HANDSHAKE_BYTES_MAX = 1_024

BUFFERED_BYTES_MAX = 8 * 2**20
"""What may wait to be sent before tails wait, and requests are refused."""


class LinkLostError(Exception):
    """The connection broke, was given up, or never came about."""


class LinkGarbledError(LinkLostError):
    """What came from a node that knows the secret made no sense: it, or what lies between, is broken."""

    code = "link_garbled"
    hint = "look at the versions of both nodes, and at what lies between them; then report it"


_ENDS = (
    LinkLostError,
    FrameError,
    msgspec.DecodeError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class LinkStream:
    """A connection whose handshake is done."""

    def __init__(self, stream: trio.abc.Stream, buffer: FrameBuffer) -> None:
        self._stream = stream
        self._buffer = buffer
        self._out: list[Any] = []
        self._sizes: list[int] = []
        self._wake = trio.Event()
        self._room = trio.Event()
        self.buffered = 0
        """Bytes that wait to be sent, about."""
        self.closed = False
        self.on_received: Callable[[], None] = lambda: None
        """Called when what one read brought was handled: whoever has sockets writes to each once."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more should be added than must be."""
        return self.buffered > BUFFERED_BYTES_MAX

    def send(self, message: Any, size: int = 64) -> None:
        """Queue a message of about `size` bytes; it leaves with what else is queued when the task's turn comes."""
        self._out.append(message)
        self._sizes.append(size)
        self.buffered += size
        self._wake.set()

    async def wait_room(self) -> bool:
        """Return True once little waits, False when the link is gone."""
        while not self.closed:
            if self.buffered <= BUFFERED_BYTES_MAX // 4:
                return True
            await self._room.wait()
        return False

    async def run(
        self, decode: Callable[[bytes], Sequence[T]], receive: Callable[[Sequence[T]], None]
    ) -> None:
        """Move messages until the connection ends; `receive` is handed those of each frame.

        Raises:
            LinkLostError: It always ends so.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._beat)
                await self._read(decode, receive)
        except BaseExceptionGroup as group:
            lost, rest = group.split(_ENDS)
            if lost is None or rest is not None:
                raise
            raise _named_loss(lost) from group
        finally:
            self.close()

    def close(self) -> None:
        """Let go of whoever waits for room; nothing is sent any more."""
        self.closed = True
        self._out.clear()
        self._sizes.clear()
        self._room.set()

    async def _read(
        self, decode: Callable[[bytes], Sequence[T]], receive: Callable[[Sequence[T]], None]
    ) -> None:
        while True:
            # Before the first read: the handshake may have read more than was its own.
            while (frame := self._buffer.take()) is not None:
                receive(decode(frame))
            self.on_received()
            data: bytes | bytearray = b""
            with trio.move_on_after(SILENT_SECONDS) as patience:
                data = await self._stream.receive_some(READ_BYTES)
            if patience.cancelled_caught:
                raise LinkLostError(f"nothing came for {SILENT_SECONDS:.0f} seconds")
            if not data:
                raise LinkLostError("the other side hung up")
            self._buffer.feed(data)

    async def _write(self) -> None:
        while True:
            if not self._out:
                self._wake = trio.Event()
                await self._wake.wait()
            count, size = self._measure_piece()
            piece = self._out[:count]
            del self._out[:count], self._sizes[:count]
            await self._stream.send_all(messages.encode(piece))
            self.buffered -= size
            if self.buffered <= BUFFERED_BYTES_MAX // 4:
                self._room.set()
                self._room = trio.Event()

    def _measure_piece(self) -> tuple[int, int]:
        """Return how many messages, and about how many bytes, go into the next frame."""
        size = 0
        for count, each in enumerate(self._sizes, 1):
            size += each
            if size >= PIECE_BYTES:
                return count, size
        return len(self._sizes), size

    async def _beat(self) -> None:
        while True:
            await trio.sleep(BEAT_SECONDS)
            if not self._out:
                self.send(Beat())


async def greet(
    stream: trio.abc.Stream, secret: bytes, node_id: str, slots: int, owner: str
) -> LinkStream:
    """Be the edge of a new connection to the node `owner`.

    Raises:
        HandshakeError: The other side is not that node of this cluster, or does not want this edge, or hung up.
    """
    buffer = FrameBuffer()
    greeting = Greeting(PROTOCOL_VERSION, node_id, slots, secrets.token_bytes(NONCE_BYTES))
    try:
        with _named("owner"):
            await stream.send_all(messages.encode(greeting))
            answer = read_welcome(await _receive(stream, buffer), secret, greeting, owner)
            await stream.send_all(messages.encode(Proof(prove(secret, "edge", greeting, answer))))
            return LinkStream(stream, buffer)
    except LinkLostError as error:
        # In TLS 1.3 an owner that does not accept this side's certificate hangs up after all seemed well.
        code = "link_tls" if isinstance(stream, trio.SSLStream) else "link_refused"
        reason = f"the owner did not go on with the handshake ({error}): see its log"
        raise HandshakeError(code, reason) from error
    except HandshakeError as error:
        refused = error
    await _say_why(stream, refused)
    raise refused


async def welcome(
    stream: trio.abc.Stream, secret: bytes, node_id: str, epoch: int, slots: int
) -> tuple[LinkStream, Greeting]:
    """Be the owner of a new connection.

    Raises:
        HandshakeError: The other side is not an edge of this cluster.
        LinkLostError: It hung up.
    """
    buffer = FrameBuffer()
    try:
        with _named("edge"):
            greeting = read_greeting(await _receive(stream, buffer), slots)
            nonce = secrets.token_bytes(NONCE_BYTES)
            answer = Welcome(PROTOCOL_VERSION, node_id, epoch, slots, nonce, b"")
            answer.proof = prove(secret, "owner", greeting, answer)
            await stream.send_all(messages.encode(answer))
            read_proof(await _receive(stream, buffer), secret, greeting, answer)
            return LinkStream(stream, buffer), greeting
    except HandshakeError as error:
        refused = error
    await _say_why(stream, refused)
    raise refused


async def _receive(stream: trio.abc.Stream, buffer: FrameBuffer) -> bytes:
    while (frame := buffer.take(HANDSHAKE_BYTES_MAX)) is None:
        data = await stream.receive_some(HANDSHAKE_BYTES_MAX)
        if not data:
            raise LinkLostError("the other side hung up")
        buffer.feed(data)
    return frame


def _named_loss(error: BaseException) -> LinkLostError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LinkLostError):
        return error
    if isinstance(error, (FrameError, msgspec.DecodeError)):
        return LinkGarbledError(f"what came is no frame: {error}")
    return LinkLostError("the connection broke")


@contextmanager
def _named(other: str) -> Iterator[None]:
    """Bound a handshake with an `other`, and name what a connection that ends too early, or says something else, comes to."""
    try:
        with trio.fail_after(HANDSHAKE_SECONDS):
            yield
    except trio.TooSlowError as error:
        reason = f"the {other} did not finish the handshake in {HANDSHAKE_SECONDS:g} s"
        raise HandshakeError("link_timeout", reason) from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise LinkLostError("the connection broke") from error
    except (FrameError, msgspec.DecodeError) as error:
        raise HandshakeError("link_protocol", f"what came is no handshake: {error}") from error


async def _say_why(stream: trio.abc.Stream, error: HandshakeError) -> None:
    """Tell the other side why this one hangs up, unless it knows."""
    if not error.was_told:
        with trio.move_on_after(REFUSAL_SECONDS), suppress(trio.BrokenResourceError):
            await stream.send_all(messages.encode(Refusal(str(error), error.code)))
