"""A message as a person reads it: one line, with nothing in it that could drive the terminal."""

from collections.abc import Callable
from typing import Any

import msgspec

from edge.printable import escape


class Message(msgspec.Struct, tag_field="type", tag="message"):
    """What is read of a stored message; its content stays the client's own bytes."""

    seq: int
    sender: str
    kind: str
    content: msgspec.Raw
    at: str
    client_id: str | None = None


class Gap(msgspec.Struct, tag_field="type", tag="gap"):
    """Seqs that are left out in a session: what they were given to may be lost."""

    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")


class Page(msgspec.Struct):
    """A page of messages as the server gives it; each stays the bytes that are stored."""

    data: list[msgspec.Raw]
    head_seq: int
    has_more: bool


class Listing(msgspec.Struct):
    """A page of sessions, or of agents, as the server gives it."""

    data: list[dict[str, Any]]
    next_cursor: str | None


class Ack(msgspec.Struct):
    """Where a message is durable."""

    seq: int
    duplicate: bool = False


class _Named(msgspec.Struct):
    id: str


class _Text(msgspec.Struct):
    text: str


_decode: Callable[[bytes], Message | Gap] = msgspec.json.Decoder(Message | Gap).decode
read_page = msgspec.json.Decoder(Page).decode
read_listing = msgspec.json.Decoder(Listing).decode
read_ack = msgspec.json.Decoder(Ack).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode
_decode_text = msgspec.json.Decoder(_Text).decode


def read_line(line: bytes) -> Message | Gap:
    """Return the message in one line of JSON, or what is there in place of messages."""
    return _decode(line)


def span_of(line: bytes) -> tuple[int, int]:
    """Return the first and the last seq that a line stands for: one of a message, many of a gap."""
    read = read_line(line)
    return (read.first, read.last) if isinstance(read, Gap) else (read.seq, read.seq)


def read_fields(answer: bytes) -> dict[str, Any]:
    """Return the fields of a session, or of an agent.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    _decode_named(answer)
    return _decode_fields(answer)


def render(line: bytes) -> str:
    """Return the message as `#12 10:02:03 alice: hello`."""
    message = read_line(line)
    if isinstance(message, Gap):
        return f"#{message.first} to #{message.last}: left out, what was there may be lost"
    kind = "" if message.kind == "text" else f" [{escape(message.kind)}]"
    return f"#{message.seq} {message.at[11:19]} {escape(message.sender)}{kind}: {content_text(message.content)}"


def content_text(content: msgspec.Raw) -> str:
    """Return `content.text` where there is one, the JSON otherwise."""
    try:
        return escape(_decode_text(content).text)
    except msgspec.DecodeError:
        return escape(bytes(content).decode(errors="replace"))
