"""Calls as tests make them: with a secret in a header, to one agent, and to the end."""

import pytest

from agents.callerror import CallError
from agents.deadlines import Deadlines
from agents.http import Caller, CallerOptions, open_caller
from tests.agents.scripted import LOCAL, PATIENT, Agent, loopback

SHORT = 0.1
"""Seconds; a deadline that a test waits for."""

BODY = b'{"messages":[]}'
HEADERS = {"content-type": "application/json", "Authorization": "Bearer canary-5d1f"}


async def call(
    caller: Caller, agent: Agent, deadlines: Deadlines = PATIENT, body: bytes = BODY
) -> bytes:
    """The whole body of an answer."""
    async with caller.post(agent.url, HEADERS, body, deadlines) as response:
        return b"".join([piece async for piece in response.stream()])


async def refused(
    agent: Agent, deadlines: Deadlines = PATIENT, options: CallerOptions = LOCAL
) -> CallError:
    """How the only call to an agent fails."""
    async with open_caller(options, resolve=loopback) as caller:
        with pytest.raises(CallError) as info:
            await call(caller, agent, deadlines)
    return info.value
