"""An agent's answer as its bytes come: chunks to show, and messages to store. Pure.

Each line says for itself what it is: an object with a `type` is a UI message chunk, one with `kind` and `content` is a
whole message, as FleetLM's agents send it. Both come as JSONL or as an event stream; `openai` answers are translated
into chunks (`agents/openai.py`). What an agent says is checked here, once, and is never trusted before.

Whatever happens, what came before stays: `partial` returns what there is of a message that was not finished.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Raw, UnsetType

from agents.answererror import AnswerError
from agents.assembler import Assembled, Assembler
from agents.lines import LINE_BYTES_MAX, LineSplitter, value_of_event, value_of_line
from agents.openai import CompletionReader
from agents.uichunks import UiChunk, decode_chunk
from runtime import DEPTH_MAX, KIND_RULE, is_kind, is_too_deep, one_line

EVENT_STREAM = "text/event-stream"
DONE = b"[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """How much one attempt may bring."""

    answer_bytes_max: int = 8 * 2**20
    """Of a response: chunks are four times as long as what they say."""

    line_bytes_max: int = LINE_BYTES_MAX

    message_bytes_max: int = 2**20
    """Of a message that is stored: a quarter of what a page of messages holds; about 200,000 words."""

    chunks_max: int = 100_000
    """More tokens than any model gives in one answer."""

    messages_max: int = 1_000


class Chunk(msgspec.Struct, frozen=True):
    """A UI message chunk for those who watch: one line of JSON."""

    data: bytes


class Said(msgspec.Struct, frozen=True):
    """A whole message to be stored."""

    kind: str
    content: bytes
    metadata: bytes


Piece = Chunk | Said


class _Line(msgspec.Struct):
    type: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    content: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class AnswerParser:
    """One attempt's answer. `message_id` gives out ids for messages whose agent names none."""

    def __init__(
        self,
        message_id: Callable[[], str],
        *,
        content_type: str = "",
        openai: bool = False,
        limits: AnswerLimits = AnswerLimits(),
    ) -> None:
        is_events = content_type.partition(";")[0].strip().lower() == EVENT_STREAM or openai
        self._value_of = value_of_event if is_events else value_of_line
        self._lines = LineSplitter(limits.line_bytes_max)
        self._limits = limits
        self._message_id = message_id
        self._completion = CompletionReader() if openai else None
        self._message: Assembler | None = None
        self.bytes = 0
        """Of the response so far."""
        self.chunks = 0
        self.messages = 0
        self._message_bytes = 0
        self._done = False

    @property
    def is_open(self) -> bool:
        """Whether a message has begun and is not finished."""
        return self._message is not None

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield what these bytes complete; take all of it before the next call.

        Raises:
            AnswerError: what is wrong, after all that was right before it.
        """
        self.bytes += len(data)
        if self.bytes > self._limits.answer_bytes_max:
            raise AnswerError(
                "answer_too_large", f"longer than {self._limits.answer_bytes_max} bytes"
            )
        for line in self._lines.feed(data):
            yield from self._read(line)

    def end(self) -> Iterator[Piece]:
        """Yield what the end of the response completes.

        Raises:
            AnswerError: it ended in the middle of a message (`answer_truncated`), or said nothing (`answer_empty`).
        """
        for line in self._lines.end():
            yield from self._read(line)
        if self._message is not None:
            raise AnswerError("answer_truncated", "it ended before its finish")
        if not self.messages:
            raise AnswerError("answer_empty", "it ended without a message")

    def partial(self, termination: str) -> Said | None:
        """Return what there is of the message that was not finished, and begin no other."""
        message, self._message = self._message, None
        if message is None or message.is_empty:
            return None
        return _said(message.assemble(termination))

    def _read(self, line: bytes) -> Iterator[Piece]:
        value = self._value_of(line)
        if value is None or self._done:
            return
        if value == DONE:
            self._done = True
            return
        number = self._lines.number
        self._check(value, number)
        if self._completion is not None:
            yield from self._take_all(self._completion.read(value, number), number)
            return
        parsed = _parse(value, number)
        if parsed.type is not UNSET:
            yield from self._take_chunk(decode_chunk(value, number), one_line(value), number)
        elif parsed.kind is not UNSET and parsed.content is not UNSET:
            yield self._legacy(parsed, number)
        else:
            reason = "neither a chunk (type) nor a message (kind and content)"
            raise AnswerError("answer_bad_chunk", reason, number)

    def _check(self, value: bytes, number: int) -> None:
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise AnswerError("answer_bad_utf8", f"at byte {error.start}", number) from None
        if is_too_deep(value):
            raise AnswerError("answer_too_deep", f"nested more than {DEPTH_MAX} deep", number)

    def _legacy(self, parsed: _Line, number: int) -> Said:
        assert parsed.kind is not UNSET
        assert parsed.content is not UNSET
        if not is_kind(parsed.kind):
            raise AnswerError("answer_bad_chunk", f"kind must be {KIND_RULE}", number)
        metadata = b"{}" if parsed.metadata is UNSET else bytes(parsed.metadata)
        if metadata == b"null":
            metadata = b"{}"
        if self._message is not None:
            raise AnswerError("answer_out_of_order", "a whole message inside another", number)
        self._count_message(number)
        return Said(parsed.kind, one_line(bytes(parsed.content)), one_line(metadata))

    def _take_all(self, chunks: list[UiChunk], number: int) -> Iterator[Piece]:
        for chunk in chunks:
            yield from self._take_chunk(chunk, msgspec.json.encode(chunk), number)

    def _take_chunk(self, chunk: UiChunk, data: bytes, number: int) -> Iterator[Piece]:
        self.chunks += 1
        if self.chunks > self._limits.chunks_max:
            raise AnswerError("answer_too_large", f"more than {self._limits.chunks_max} chunks")
        if chunk.type == "error":
            raise AnswerError("answer_error", str(chunk.errorText), number)
        if chunk.type == "start":
            yield self._begin(chunk, data, number)
            return
        if self._message is None:
            if chunk.type in {"finish", "abort"}:
                raise AnswerError("answer_out_of_order", f"{chunk.type} before start", number)
            # Clients need its id before anything of it.
            self.chunks += 1
            yield self._begin(UiChunk("start"), b'{"type":"start"}', number)
        assert self._message is not None
        self._message_bytes += len(data)
        if self._message_bytes > 4 * self._limits.message_bytes_max:
            raise self._too_large()
        if chunk.type in {"finish", "abort"}:
            self._message.merge_metadata(chunk.messageMetadata, number)
            said = self._finish(chunk.type)
            yield Chunk(data)
            yield said
            return
        self._message.add(chunk, number)
        yield Chunk(data)

    def _begin(self, chunk: UiChunk, data: bytes, number: int) -> Chunk:
        if self._message is not None:
            raise AnswerError("answer_out_of_order", "start inside a message", number)
        message_id = chunk.messageId
        if message_id is UNSET or not message_id:
            message_id = self._message_id()
            members = _decode_members(data) | {"messageId": message_id}
            data = msgspec.json.encode(members)
        self._message_bytes = 0
        message = Assembler(message_id)
        message.merge_metadata(chunk.messageMetadata, number)
        self._message = message
        return Chunk(data)

    def _finish(self, termination: str) -> Said:
        assert self._message is not None
        said = _said(self._message.assemble(termination))
        if len(said.content) + len(said.metadata) > self._limits.message_bytes_max:
            raise self._too_large()
        self._count_message(self._lines.number)
        self._message = None
        return said

    def _count_message(self, number: int) -> None:
        self.messages += 1
        if self.messages > self._limits.messages_max:
            reason = f"more than {self._limits.messages_max} messages"
            raise AnswerError("answer_too_large", reason, number)

    def _too_large(self) -> AnswerError:
        return AnswerError(
            "answer_too_large", f"a message of more than {self._limits.message_bytes_max} bytes"
        )


def _parse(value: bytes, number: int) -> _Line:
    try:
        return _decode_line(value)
    except msgspec.ValidationError as error:
        raise AnswerError("answer_bad_chunk", str(error), number) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise AnswerError("answer_bad_json", str(error), number) from None


def _said(message: Assembled) -> Said:
    return Said(message.kind, message.content, message.metadata)
