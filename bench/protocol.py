"""The client's side of ``ringlog.v1``, written from the protocol and not from the server.

Sharing the server's own encoder would let one mistake cancel another, so the bench, the crash test
and the demo speak through these few structs. Content stays raw: it is compared as bytes.
"""

import msgspec

from bench.checker import Replayed


class Hello(msgspec.Struct, tag="hello"):
    """The first frame on a connection."""

    user: str | None = None


class Joined(msgspec.Struct, tag="joined"):
    """The answer to a join; messages follow."""

    ref: str
    session: str
    head_seq: int


class Message(msgspec.Struct, tag="message"):
    """One message, replayed or live."""

    session: str
    seq: int
    id: str
    sender: str
    content: msgspec.Raw
    client_id: str | None = None
    kind: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"")
    """A server that leaves one out is found to have changed it."""

    def replayed(self) -> Replayed:
        """Return what the checker compares."""
        return Replayed(
            self.seq,
            self.id,
            self.sender,
            self.client_id,
            bytes(self.content),
            self.kind,
            bytes(self.metadata),
        )


class Ack(msgspec.Struct, tag="ack"):
    """The message with this ref is durable."""

    ref: str
    session: str
    seq: int
    id: str
    client_id: str | None = None
    duplicate: bool = False


class Ok(msgspec.Struct, tag="ok"):
    """The request with this ref was done."""

    ref: str


class Gap(msgspec.Struct, tag="gap", rename={"from_seq": "from", "to_seq": "to"}):
    """These seqs will not be shown."""

    session: str
    from_seq: int
    to_seq: int
    reason: str


class Error(msgspec.Struct, tag="error"):
    """The request with this ref was refused."""

    code: str
    message: str = ""
    ref: str | None = None
    retry_after_ms: int | None = None


Answer = Hello | Joined | Message | Ack | Ok | Gap | Error

decode_answer = msgspec.json.Decoder(Answer).decode


class Create(msgspec.Struct, omit_defaults=True):
    """What a join creates if it is not there."""

    user_id: str
    members: tuple[str, ...] = ()


class Join(msgspec.Struct, tag="join", omit_defaults=True):
    """Follow a session after `last_seq`."""

    ref: str
    session: str
    last_seq: int | None = None
    create: Create | None = None


class Leave(msgspec.Struct, tag="leave"):
    """Follow a session no longer."""

    ref: str
    session: str


class Send(msgspec.Struct, tag="send", omit_defaults=True):
    """Append one message."""

    ref: str
    session: str
    client_id: str
    kind: str
    content: msgspec.Raw
    metadata: msgspec.Raw | None = None
    sender: str | None = None
    expected_seq: int | None = None


encode = msgspec.json.Encoder().encode


class ProtocolError(Exception):
    """The server answered what no client of this bench can go on with."""

    def __init__(self, error: Error) -> None:
        self.error = error
        super().__init__(f"{error.code}: {error.message} (ref {error.ref})")
