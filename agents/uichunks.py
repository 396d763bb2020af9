"""UI message chunks, as the AI SDK streams them (protocol v1): which there are, and what each must have. Pure.

A chunk is one JSON object with a `type`. Clients of the AI SDK end at the first chunk that they do not know, so what is
not in this table is refused; but fields that a chunk has beyond these are passed on. `data-<name>` is whatever its
sender says. Sources: the schema of `uiMessageChunkSchema` in `ai` 5, 6 and 7.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import UNSET, Raw, UnsetType

from agents.answererror import AnswerError

DATA_PREFIX = "data-"

REQUIRED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "start": (),
        "message-metadata": ("messageMetadata",),
        "start-step": (),
        "finish-step": (),
        "finish": (),
        "abort": (),
        "error": ("errorText",),
        "text-start": ("id",),
        "text-delta": ("id", "delta"),
        "text-end": ("id",),
        "reasoning-start": ("id",),
        "reasoning-delta": ("id", "delta"),
        "reasoning-end": ("id",),
        "tool-input-start": ("toolCallId", "toolName"),
        "tool-input-delta": ("toolCallId", "inputTextDelta"),
        "tool-input-available": ("toolCallId", "toolName", "input"),
        "tool-input-error": ("toolCallId", "toolName", "input", "errorText"),
        "tool-approval-request": ("approvalId", "toolCallId"),
        "tool-output-available": ("toolCallId", "output"),
        "tool-output-error": ("toolCallId", "errorText"),
        "tool-output-denied": ("toolCallId",),
        "source-url": ("sourceId", "url"),
        "source-document": ("sourceId", "mediaType", "title"),
        "file": ("url", "mediaType"),
    }
)
"""The types, and the fields that each cannot do without."""


class UiChunk(msgspec.Struct, gc=False):
    """A chunk, decoded: the fields that this or that type has. Values of any shape stay bytes."""

    type: str
    id: str | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    errorText: str | UnsetType = UNSET  # noqa: N815 - the wire's own names, as are the next
    messageId: str | UnsetType | None = UNSET  # noqa: N815
    messageMetadata: Raw | UnsetType = UNSET  # noqa: N815
    finishReason: str | UnsetType = UNSET  # noqa: N815
    toolCallId: str | UnsetType = UNSET  # noqa: N815
    toolName: str | UnsetType = UNSET  # noqa: N815
    dynamic: bool | UnsetType = UNSET
    inputTextDelta: str | UnsetType = UNSET  # noqa: N815
    input: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    approvalId: str | UnsetType = UNSET  # noqa: N815
    sourceId: str | UnsetType = UNSET  # noqa: N815
    url: str | UnsetType = UNSET
    mediaType: str | UnsetType = UNSET  # noqa: N815
    title: str | UnsetType = UNSET
    filename: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    transient: bool | UnsetType = UNSET
    providerMetadata: Raw | UnsetType = UNSET  # noqa: N815


_decode = msgspec.json.Decoder(UiChunk).decode


def decode_chunk(value: bytes, line: int) -> UiChunk:
    """Return the chunk in valid JSON.

    Raises:
        AnswerError: answer_bad_chunk.
    """
    try:
        chunk: UiChunk = _decode(value)
    except msgspec.ValidationError as error:
        raise AnswerError("answer_bad_chunk", str(error), line) from None
    required = REQUIRED.get(chunk.type)
    if required is None:
        if not chunk.type.startswith(DATA_PREFIX) or chunk.type == DATA_PREFIX:
            raise AnswerError("answer_bad_chunk", f"there is no chunk of type {chunk.type!r}", line)
        required = ("data",)
    for name in required:
        if getattr(chunk, name) is UNSET:
            raise AnswerError("answer_bad_chunk", f"a {chunk.type} has no {name}", line)
    return chunk
