"""A message as a person reads it: one line, with nothing in it that could drive the terminal."""

import msgspec

from edge.printable import escape


class Message(msgspec.Struct):
    """What is read of a stored message; its content stays the client's own bytes."""

    seq: int
    sender: str
    kind: str
    content: msgspec.Raw
    at: str
    client_id: str | None = None


class Page(msgspec.Struct):
    """A page of messages as the server gives it; each stays the bytes that are stored."""

    data: list[msgspec.Raw]
    head_seq: int
    has_more: bool


class _Text(msgspec.Struct):
    text: str


_decode = msgspec.json.Decoder(Message).decode
read_page = msgspec.json.Decoder(Page).decode
_decode_text = msgspec.json.Decoder(_Text).decode


def read_message(line: bytes) -> Message:
    """Return the message in one line of JSON."""
    return _decode(line)


def render(line: bytes) -> str:
    """Return the message as `#12 10:02:03 alice: hello`."""
    message = read_message(line)
    kind = "" if message.kind == "text" else f" [{escape(message.kind)}]"
    return f"#{message.seq} {message.at[11:19]} {escape(message.sender)}{kind}: {content_text(message.content)}"


def content_text(content: msgspec.Raw) -> str:
    """Return `content.text` where there is one, the JSON otherwise."""
    try:
        return escape(_decode_text(content).text)
    except msgspec.DecodeError:
        return escape(bytes(content).decode(errors="replace"))
