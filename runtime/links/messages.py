"""What edges and owners say to each other: values, and their bytes.

On the wire a frame is a u32 length, little endian, and that many bytes of MessagePack: an array of messages,
as many as there were to send, each an array that begins with its number here.

A *channel* is one session that one edge has open at one owner, for as long as that owner serves it. Its number is
the edge's, and is never used again on that link. Requests on a channel are taken in their order; each that has a
`number` gets exactly one answer with that number, and what was published comes before the acknowledgement of it.
A channel ends with `Gone`, which comes after the answers to all that was accepted on it: what has none was not
accepted, and the edge sends it, in order, on another channel, at the owner that the session has then. Where the link
itself ends, what had no answer may have been accepted: it is repeated. A `client_id` that is repeated is recognised.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

LENGTH_BYTES = 4

FRAME_BYTES_MAX = 64 * 2**20
"""A frame beyond this is no frame: pieces are cut at a fraction of it."""

PIECE_BYTES = 128 * 1024
"""About so many bytes go into one frame, so that neither side is busy with one for long."""

NO_NUMBER = 0
"""Of a refusal that ends the opening of a channel."""


class _Message(msgspec.Struct, array_like=True, gc=False):
    """A message; each class has its number as its tag."""


# What an edge sends.


class Open(_Message, tag=1):
    """Open a channel. With `after_seq`, messages after it follow; without (-1), none do until `Follow`."""

    channel: int
    workspace: str
    session: str
    after_seq: int


class Follow(_Message, tag=2):
    """Send messages from now on; answered with the head: what comes is what follows it.

    On a channel that has them already: answered with the head as it is.
    """

    channel: int
    number: int


class Append(_Message, tag=3):
    """Append a message. `user` is who must be allowed to, None where a backend answers for it.

    `repeated_after` is -1 where it is sent for the first time; else the head that the edge knew of when it was: if
    the message was stored, then after that.
    """

    channel: int
    number: int
    user: str | None
    sender: str
    client_id: str
    kind: str
    content: bytes
    metadata: bytes
    expected_seq: int | None
    repeated_after: int = -1


class MarkRead(_Message, tag=4):
    """Move the read cursor of `reader` forward; answered with where it stands. `user` as for `Append`."""

    channel: int
    number: int
    user: str | None
    reader: str
    seq: int


class Fetch(_Message, tag=5):
    """Ask for stored messages: after `after_seq`, or the newest below `before_seq` if that is not 0.

    `user` as for `Append`.
    """

    channel: int
    number: int
    user: str | None
    after_seq: int
    before_seq: int
    limit: int
    bytes_max: int


class Close(_Message, tag=6):
    """The edge needs the channel no longer."""

    channel: int


class Create(_Message, tag=7):
    """Create a session."""

    number: int
    workspace: str
    session: str
    user_id: str
    members: tuple[str, ...]
    agent_id: str | None
    metadata: bytes


class Change(_Message, tag=8):
    """Change a session; None leaves a part as it is, `delete` erases it."""

    number: int
    workspace: str
    session: str
    state: str | None = None
    members: tuple[str, ...] | None = None
    metadata: bytes | None = None
    agent_id: str | None = None
    clear_agent: bool = False
    expected_version: int | None = None
    delete: bool = False


class Settle(_Message, tag=9):
    """Answer when the archive lists every session as it is now."""

    number: int


class Beat(_Message, tag=10):
    """The sender lives. Either side sends one when it has had nothing else to say for a while."""


class Stop(_Message, tag=11):
    """Stop the answer that is being given. `user` as for `Append`."""

    channel: int
    number: int
    user: str | None


# What an owner sends.


class Opened(_Message, tag=20):
    """The channel is open: the session's state, its durable head, and the dispatch that is being answered, or ""."""

    channel: int
    info: bytes
    head_seq: int
    dispatch: str = ""


class Acked(_Message, tag=21):
    """The message is durable."""

    channel: int
    number: int
    seq: int
    id: str
    duplicate: bool


class Done(_Message, tag=22):
    """The request is done; `value` is what it asked for."""

    channel: int
    number: int
    value: int


class Refused(_Message, tag=23):
    """The request was refused, and changed nothing; of no number: the channel could not be opened.

    `decided` tells that the session itself refused, knowing that this was not stored before; where it is not, a
    message that was sent before may have been stored then.
    """

    channel: int
    number: int
    code: str
    text: str
    hint: str
    retry_after_ms: int | None
    details: dict[str, Any]
    decided: bool = False


class Delivered(_Message, tag=24):
    """A message of a session that is followed: the next one."""

    channel: int
    seq: int
    body: bytes


class Page(_Message, tag=25):
    """Messages with seqs that ascend by one, but for gaps, after `after_seq` from `first_seq` on."""

    channel: int
    number: int
    first_seq: int
    bodies: Sequence[bytes]
    head_seq: int
    has_more: bool


class Info(_Message, tag=26):
    """The session's state has changed, and is durable."""

    channel: int
    info: bytes


class Gone(_Message, tag=27):
    """The session is not here any more: nothing else comes on this channel, and no answer is still due."""

    channel: int


class Changed(_Message, tag=28):
    """A session was created or changed, or was there already: its state."""

    number: int
    info: bytes
    created: bool


class Shown(_Message, tag=29):
    """A frame of the answer that is given in a session that is followed; see `runtime.answer` for its place."""

    channel: int
    dispatch: str
    place: int
    frame: bytes


FromEdge = (
    Open | Follow | Append | MarkRead | Fetch | Stop | Close | Create | Change | Settle | Beat
)
FromOwner = (
    Opened | Acked | Done | Refused | Delivered | Shown | Page | Info | Gone | Changed | Beat
)

_encode_into = msgspec.msgpack.Encoder().encode_into
decode_from_edge: Callable[[bytes], list[FromEdge]] = msgspec.msgpack.Decoder(list[FromEdge]).decode
decode_from_owner: Callable[[bytes], list[FromOwner]] = msgspec.msgpack.Decoder(
    list[FromOwner]
).decode


def encode(messages: Sequence[_Message] | msgspec.Struct) -> bytearray:
    """Return one frame."""
    data = bytearray(LENGTH_BYTES)
    _encode_into(messages, data, LENGTH_BYTES)
    data[:LENGTH_BYTES] = (len(data) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "little")
    return data


class FrameError(Exception):
    """What came is not a frame of this protocol: the link is of no more use."""


class FrameBuffer:
    """Bytes as they come, and the frames that are whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes."""
        self._data += data

    def take(self, length_max: int = FRAME_BYTES_MAX) -> bytes | None:
        """Return the payload of the next frame, None where it is not whole yet.

        Raises:
            FrameError: it is longer than any that is sent.
        """
        data = self._data
        if len(data) < LENGTH_BYTES:
            return None
        length = int.from_bytes(data[:LENGTH_BYTES], "little")
        if length > length_max:
            raise FrameError(f"a frame of {length} bytes")
        end = LENGTH_BYTES + length
        if len(data) < end:
            return None
        frame = bytes(data[LENGTH_BYTES:end])
        del data[:end]
        return frame
