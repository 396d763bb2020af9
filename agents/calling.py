"""What a call of an agent carries: its own headers, the signature, what kind of answer is understood.

Its secrets are opened here, for one call, and are nowhere else.
"""

import secrets as random_secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import trio

from agents.agent import Agent
from agents.callerror import CallError
from agents.deadlines import Deadlines
from agents.errors import AgentError
from agents.http import Caller, CallResponse
from agents.registry import Registered, Registry
from agents.signing import sign
from agents.tracing import SPAN_BYTES, begin_trace
from runtime import Dispatch

ACCEPT = "application/jsonl, application/x-ndjson, text/event-stream, application/json"


class Calling:
    """Calls agents over HTTP as they are configured."""

    def __init__(self, registry: Registry, caller: Caller) -> None:
        self._registry = registry
        self._caller = caller

    @asynccontextmanager
    async def post(
        self, registered: Registered, dispatch: Dispatch, body: bytes
    ) -> AsyncIterator[CallResponse]:
        """Make a call.

        Raises:
            CallError: it cannot be made, or brought no answer; also out of the block.
        """
        agent = registered.agent
        assert agent.url is not None
        try:
            secrets = await trio.to_thread.run_sync(self._registry.open_secrets, registered)
        except AgentError as error:
            raise CallError(error.code, error.message) from None
        headers = {"accept": ACCEPT, "content-type": "application/json"}
        headers |= {"traceparent": _traceparent(dispatch), **secrets.headers}
        if secrets.signing:
            headers |= sign(secrets.signing, dispatch.dispatch, datetime.now(UTC), body)
        async with self._caller.post(agent.url, headers, body, _deadlines(agent)) as response:
            yield response


def _deadlines(agent: Agent) -> Deadlines:
    return Deadlines(
        connect_seconds=agent.connect_timeout_ms / 1000,
        first_byte_seconds=agent.first_byte_timeout_ms / 1000,
        idle_seconds=agent.idle_timeout_ms / 1000,
        total_seconds=agent.timeout_ms / 1000,
    )


def _traceparent(dispatch: Dispatch) -> str:
    """Return a trace context: the dispatch is the trace, each attempt a span of its own."""
    trace = bytes.fromhex(dispatch.dispatch.replace("-", ""))
    return begin_trace(trace, random_secrets.token_bytes(SPAN_BYTES)).header
