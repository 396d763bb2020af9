"""How many calls of an agent are made at once on this node, and whether any are: who comes first is served first.

One agent's calls never wait for another's. A place is taken for as long as an answer takes, so who waits here holds
nothing but itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from agents import breaker
from agents.breaker import Breaker, BreakerOptions
from storage import AgentKey


class AgentPlaces:
    """One agent's places, and its circuit breaker."""

    def __init__(self, options: BreakerOptions) -> None:
        self.limiter = trio.CapacityLimiter(1)
        self.users = 0
        self.breaker = Breaker()
        self._options = options

    def wait_seconds(self) -> float:
        """Return how long to wait before a call; 0: make it now, and report how it ended."""
        now = trio.current_time()
        self.breaker, permission = breaker.ask(self.breaker, self._options, now)
        return 0.0 if permission.granted else permission.ask_again_at - now

    def succeeded(self) -> None:
        """A call came through."""
        self.breaker = breaker.succeeded(self.breaker)

    def failed(self) -> None:
        """A call failed in a way that speaks against the agent."""
        self.breaker = breaker.failed(self.breaker, self._options, trio.current_time())


class Places:
    """The places of all agents that are being called."""

    def __init__(self, options: BreakerOptions = BreakerOptions()) -> None:  # noqa: B008 - frozen
        self._options = options
        self._agents: dict[AgentKey, AgentPlaces] = {}

    @asynccontextmanager
    async def take(self, key: AgentKey, concurrency: int) -> AsyncIterator[AgentPlaces]:
        """Hold one of an agent's `concurrency` places, as it is configured now."""
        if key not in self._agents:
            self._agents[key] = AgentPlaces(self._options)
        agent = self._agents[key]
        agent.limiter.total_tokens = concurrency
        agent.users += 1
        try:
            # Each session has a task, and asks for one place at a time.
            async with agent.limiter:
                yield agent
        finally:
            agent.users -= 1
            # One that fails is remembered.
            if not agent.users and agent.breaker == Breaker():
                self._agents.pop(key, None)
