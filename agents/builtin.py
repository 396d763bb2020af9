"""The agents that are built in: `echo` says what it was told, `lorem` says what printers say. Nothing is called.

They answer in UI message chunks, as a stream does that a webhook sends, so that a first run needs no key and shows
everything.
"""

from collections.abc import AsyncGenerator, Sequence

import msgspec
import trio

from agents.history import Shown
from agents.openai import text_of

LOREM = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo "
    "consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur."
)

LOREM_WORD_SECONDS = 0.05
"""As fast as a quick model speaks."""


async def answer(agent_type: str, history: Sequence[Shown]) -> AsyncGenerator[bytes, None]:
    """Yield the lines of an answer."""
    if agent_type == "echo":
        words, pause = [text_of(history[-1].content)], 0.0
    else:
        words, pause = [f"{word} " for word in LOREM.split()], LOREM_WORD_SECONDS
    yield _line({"type": "start"}) + _line({"type": "text-start", "id": "text"})
    for word in words:
        await trio.sleep(pause)
        yield _line({"type": "text-delta", "id": "text", "delta": word})
    yield _line({"type": "text-end", "id": "text"}) + _line({"type": "finish"})


def _line(chunk: dict[str, str]) -> bytes:
    return msgspec.json.encode(chunk) + b"\n"
