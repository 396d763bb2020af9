"""What a call of an agent carries: its own headers, the signature, what kind of answer is understood.

Its secrets are opened here, for one call, and are nowhere else.
"""

import secrets as random_secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from agents.agent import Agent
from agents.callerror import CallError
from agents.calls import Caller, Deadlines, Response
from agents.errors import AgentError
from agents.registry import Registered, Registry
from agents.signing import sign
from runtime import Dispatch

USER_AGENT = "ringlog-agents/1"
ACCEPT = "application/jsonl, text/event-stream, application/x-ndjson, application/json"


class Calling:
    """Calls agents over HTTP as they are configured."""

    def __init__(self, registry: Registry, caller: Caller) -> None:
        self._registry = registry
        self._caller = caller

    @asynccontextmanager
    async def post(
        self, registered: Registered, dispatch: Dispatch, body: bytes
    ) -> AsyncIterator[Response]:
        """Make a call.

        Raises:
            CallError: it cannot be made, or brought no answer; also out of the block.
        """
        agent = registered.agent
        assert agent.url is not None
        try:
            secrets = await trio.to_thread.run_sync(self._registry.open_secrets, registered)
        except AgentError as error:
            raise CallError(error.code, error.message, retryable=False) from None
        headers = {
            "user-agent": USER_AGENT,
            "accept": ACCEPT,
            "accept-encoding": "identity",
            "content-type": "application/json",
            "traceparent": _traceparent(dispatch),
        }
        headers |= secrets.headers
        headers |= sign(dispatch.dispatch, int(time.time()), body, secrets.signing)
        headers["content-length"] = str(len(body))
        async with self._caller.post(agent.url, headers, body, _deadlines(agent)) as response:
            yield response


def _deadlines(agent: Agent) -> Deadlines:
    return Deadlines(
        agent.connect_timeout_ms / 1000,
        agent.first_byte_timeout_ms / 1000,
        agent.idle_timeout_ms / 1000,
        agent.timeout_ms / 1000,
    )


def _traceparent(dispatch: Dispatch) -> str:
    """Return a W3C trace context: the dispatch is the trace, each attempt a span of its own."""
    trace = dispatch.dispatch.replace("-", "")
    return f"00-{trace}-{random_secrets.token_hex(8)}-01"
