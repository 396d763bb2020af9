"""Any OpenAI-compatible `/chat/completions` endpoint as an agent: what it is asked, and what its deltas mean. Pure.

It is asked with `"stream": true`. Its event stream is translated into UI message chunks: text, reasoning (which some
send as `reasoning_content`), and tool calls.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from agents.answererror import AnswerError
from agents.history import Shown
from agents.uichunks import UiChunk
from runtime import AGENT_PREFIX

TEXT_ID, REASONING_ID = "text", "reasoning"
"""Ids of the parts: an answer has at most one of each open."""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list["_ToolCall"] | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    error: Raw = msgspec.field(default_factory=Raw)


class _Text(msgspec.Struct):
    text: str


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Parts(msgspec.Struct):
    parts: list[_Part]


_decode = msgspec.json.Decoder(_Event).decode
_decode_text = msgspec.json.Decoder(_Text).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_parts = msgspec.json.Decoder(_Parts).decode

ERROR_LENGTH_MAX = 500

FINISH_REASONS = {"stop": "stop", "length": "length", "content_filter": "content-filter"}
TOOL_FINISH = "tool-calls"


def encode_request(model: str, system: str | None, history: Sequence[Shown]) -> bytes:
    """Return the body of a request: the history as turns of user and assistant, after the system's prompt."""
    messages = [] if not system else [{"role": "system", "content": system}]
    for shown in history:
        role = "assistant" if shown.sender.startswith(AGENT_PREFIX) else "user"
        messages.append({"role": role, "content": text_of(shown.content)})
    return msgspec.json.encode({"model": model, "messages": messages, "stream": True})


def text_of(content: Raw) -> str:
    """Return what a message says: its `text`, its text parts, or itself if it is a string; else its JSON."""
    try:
        return _decode_text(content).text
    except msgspec.ValidationError:
        pass
    try:
        parts = _decode_parts(content).parts
        return "".join(part.text for part in parts if part.type == "text")
    except msgspec.ValidationError:
        pass
    try:
        return _decode_string(content)
    except msgspec.ValidationError:
        return bytes(content).decode()


class CompletionReader:
    """Translates one streamed completion."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self._finish_reason = "unknown"

    def read(self, value: bytes, line: int) -> list[UiChunk]:
        """Return the chunks that an event means.

        Raises:
            AnswerError: answer_bad_json, answer_bad_chunk, answer_error.
        """
        try:
            event: _Event = _decode(value)
        except msgspec.ValidationError as wrong:
            raise AnswerError("answer_bad_chunk", str(wrong), line) from None
        except (msgspec.DecodeError, RecursionError) as wrong:
            raise AnswerError("answer_bad_json", str(wrong), line) from None
        error = bytes(event.error)
        if error not in {b"", b"null"}:
            raise AnswerError("answer_error", error.decode()[:ERROR_LENGTH_MAX], line)
        chunks: list[UiChunk] = []
        for choice in event.choices:
            if choice.index == 0:
                self._read_delta(choice.delta, chunks)
                if choice.finish_reason is not None:
                    self._finish_reason = FINISH_REASONS.get(choice.finish_reason, TOOL_FINISH)
                    chunks += self._close()
        return chunks

    def _read_delta(self, delta: _Delta, chunks: list[UiChunk]) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            self._switch(REASONING_ID, chunks)
            chunks.append(UiChunk("reasoning-delta", id=REASONING_ID, delta=reasoning))
        if delta.content:
            self._switch(TEXT_ID, chunks)
            chunks.append(UiChunk("text-delta", id=TEXT_ID, delta=delta.content))
        for call in delta.tool_calls or ():
            self._read_call(call, chunks)

    def _read_call(self, call: _ToolCall, chunks: list[UiChunk]) -> None:
        function = call.function or _Function()
        if call.index not in self._calls:
            self._switch("", chunks)
            call_id = call.id or f"call-{call.index}"
            name = function.name or "unknown"
            self._calls[call.index] = (call_id, name, [])
            chunks.append(UiChunk("tool-input-start", toolCallId=call_id, toolName=name))
        call_id, _, arguments = self._calls[call.index]
        if function.arguments:
            arguments.append(function.arguments)
            chunks.append(
                UiChunk("tool-input-delta", toolCallId=call_id, inputTextDelta=function.arguments)
            )

    def _switch(self, part: str, chunks: list[UiChunk]) -> None:
        """Close the part that is open, and open another."""
        if self._open and self._open[0] != part:
            old = self._open.pop()
            chunks.append(UiChunk(f"{old}-end", id=old))
        if part and not self._open:
            self._open.append(part)
            chunks.append(UiChunk(f"{part}-start", id=part))

    def _close(self) -> list[UiChunk]:
        chunks: list[UiChunk] = []
        self._switch("", chunks)
        for call_id, name, arguments in self._calls.values():
            chunks.append(_input(call_id, name, "".join(arguments)))
        self._calls.clear()
        chunks.append(UiChunk("finish", finishReason=self._finish_reason))
        return chunks


def _input(call_id: str, name: str, arguments: str) -> UiChunk:
    text = arguments or "{}"
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        quoted = Raw(msgspec.json.encode(text))
        return UiChunk(
            "tool-input-error",
            toolCallId=call_id,
            toolName=name,
            input=quoted,
            errorText="the arguments are not JSON",
        )
    return UiChunk(
        "tool-input-available", toolCallId=call_id, toolName=name, input=Raw(text.encode())
    )
