"""One message out of UI message chunks: `{"id", "role": "assistant", "parts": […]}`. Pure.

The chunks of a part come in an order, each for something that is there; what comes otherwise is refused, and changes
nothing::

    text, reasoning   start ─▶ delta … ─▶ end
    tool              input-start ─▶ input-delta … ─▶ input-available ─▶ output-available · output-error
                      (or input-available at once)         └─▶ approval-request ─▶ … · output-denied
                                                      input-error
    data-<name>       with the id of an earlier one of its name: in its place
    message           start ─▶ … ─▶ finish · abort

Values of any shape (inputs, outputs, data, metadata) are the agent's own bytes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from agents.answererror import AnswerError
from agents.uichunks import DATA_PREFIX, UiChunk

KIND = "assistant"
"""The kind of the messages that are assembled."""

TOOL_AFTER: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "tool-input-start": frozenset({""}),
        "tool-input-delta": frozenset({"input-streaming"}),
        "tool-input-available": frozenset({"", "input-streaming"}),
        "tool-input-error": frozenset({"", "input-streaming"}),
        "tool-approval-request": frozenset({"input-available"}),
        # One that is preliminary is followed by others.
        "tool-output-available": frozenset(
            {"input-available", "approval-requested", "output-available"}
        ),
        "tool-output-error": frozenset({"input-available", "approval-requested"}),
        "tool-output-denied": frozenset({"input-available", "approval-requested"}),
    }
)
"""Which states of a tool call each chunk may follow; "" is one that is not there yet."""

TOOL_STATE: Mapping[str, str] = MappingProxyType(
    {
        "tool-input-start": "input-streaming",
        "tool-input-delta": "input-streaming",
        "tool-input-available": "input-available",
        "tool-input-error": "output-error",
        "tool-approval-request": "approval-requested",
        "tool-output-available": "output-available",
        "tool-output-error": "output-error",
        "tool-output-denied": "output-denied",
    }
)
"""And to which state each leads."""

Part = dict[str, Any]


class Assembled(msgspec.Struct, frozen=True):
    """A message to be stored: `content` and `metadata` are JSON on one line."""

    kind: str
    content: bytes
    metadata: bytes


class Assembler:
    """The message that is being put together."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self._parts: list[Part] = []
        self._texts: dict[tuple[str, str], tuple[Part, list[str]]] = {}
        """By kind and id: text parts that are open, and their pieces."""
        self._tools: dict[str, Part] = {}
        self._data: dict[tuple[str, str], Part] = {}
        self._metadata: dict[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        return not self._parts

    def add(self, chunk: UiChunk, line: int) -> None:
        """Take a chunk of this message's inside: all but start, finish, abort and error.

        Raises:
            AnswerError: answer_out_of_order.
        """
        kind, _, event = chunk.type.rpartition("-")
        if kind in {"text", "reasoning"}:
            self._add_text(kind, event, chunk, line)
        elif chunk.type in TOOL_AFTER:
            self._add_tool(chunk, line)
        elif chunk.type.startswith(DATA_PREFIX):
            self._add_data(chunk)
        elif chunk.type == "start-step":
            self._parts.append({"type": "step-start"})
        elif chunk.type == "message-metadata":
            self.merge_metadata(chunk.messageMetadata, line)
        elif chunk.type in {"file", "source-url", "source-document"}:
            names = ("sourceId", "mediaType", "url", "title", "filename", "providerMetadata")
            self._parts.append({"type": chunk.type} | _given(chunk, names))
        else:
            assert chunk.type == "finish-step"

    def merge_metadata(self, metadata: Raw | msgspec.UnsetType, line: int) -> None:
        """Take the message's metadata: an object, of which a later member of a name counts.

        Raises:
            AnswerError: answer_bad_chunk.
        """
        if metadata is UNSET:
            return
        try:
            members = _decode_members(metadata)
        except msgspec.ValidationError:
            raise AnswerError("answer_bad_chunk", "messageMetadata is no object", line) from None
        self._metadata |= members or {}

    def assemble(self, termination: str) -> Assembled:
        """Return the message as far as it has come; `termination` says why nothing more does."""
        texts = {id(part): pieces for part, pieces in self._texts.values()}
        parts = [
            part | {"text": "".join(texts[id(part)]), "state": "done"}
            if id(part) in texts
            else part
            for part in self._parts
        ]
        content = {"id": self.message_id, "role": KIND, "parts": parts}
        metadata = self._metadata | {"termination": termination}
        return Assembled(KIND, msgspec.json.encode(content), msgspec.json.encode(metadata))

    def _add_text(self, kind: str, event: str, chunk: UiChunk, line: int) -> None:
        assert chunk.id is not UNSET
        key = (kind, chunk.id)
        if event == "start":
            if key in self._texts:
                raise _out_of_order(chunk, f"{kind} {chunk.id!r} is open already", line)
            part: Part = {"type": kind, "text": "", "state": "streaming"}
            self._parts.append(part)
            self._texts[key] = (part, [])
            return
        if key not in self._texts:
            raise _out_of_order(chunk, f"{kind} {chunk.id!r} is not open", line)
        part, pieces = self._texts[key]
        if chunk.providerMetadata is not UNSET:
            part["providerMetadata"] = chunk.providerMetadata
        if event == "delta":
            assert chunk.delta is not UNSET
            pieces.append(chunk.delta)
        else:
            part |= {"text": "".join(pieces), "state": "done"}
            del self._texts[key]

    def _add_tool(self, chunk: UiChunk, line: int) -> None:
        assert chunk.toolCallId is not UNSET
        call = chunk.toolCallId
        part = self._tools.get(call)
        state = "" if part is None else part["state"]
        if state not in TOOL_AFTER[chunk.type]:
            where = f"is {state}" if state else "was not begun"
            raise _out_of_order(chunk, f"tool call {call!r} {where}", line)
        if part is None:
            name = chunk.toolName
            dynamic = chunk.dynamic is True
            part = (
                {"type": "dynamic-tool", "toolName": name} if dynamic else {"type": f"tool-{name}"}
            )
            part["toolCallId"] = call
            self._tools[call] = part
            self._parts.append(part)
        part["state"] = TOOL_STATE[chunk.type]
        part |= _given(chunk, ("input", "output", "errorText"))
        if chunk.approvalId is not UNSET:
            part["approval"] = {"id": chunk.approvalId}

    def _add_data(self, chunk: UiChunk) -> None:
        if chunk.transient is True:
            return  # For those who watch: it is shown, and not stored.
        part: Part = {"type": chunk.type} | _given(chunk, ("id", "data"))
        if chunk.id is UNSET:
            self._parts.append(part)
            return
        key = (chunk.type, chunk.id)
        if key in self._data:
            self._data[key] |= part
        else:
            self._data[key] = part
            self._parts.append(part)


_decode_members = msgspec.json.Decoder(dict[str, Raw] | None).decode


def _given(chunk: UiChunk, names: tuple[str, ...]) -> Part:
    values = {name: getattr(chunk, name) for name in names}
    return {name: value for name, value in values.items() if value is not UNSET}


def _out_of_order(chunk: UiChunk, reason: str, line: int) -> AnswerError:
    return AnswerError("answer_out_of_order", f"{chunk.type}: {reason}", line)
