"""How many calls of an agent are made at once on this node: who comes first is served first.

One agent's calls never wait for another's. A place is taken for as long as an answer takes, so who waits here holds
nothing but itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from agents.breaker import Breaker
from storage import AgentKey


class AgentPlaces:
    """One agent's places, and its breaker."""

    def __init__(self) -> None:
        self.limiter = trio.CapacityLimiter(1)
        self.breaker = Breaker()
        self.users = 0


class Places:
    """The places of all agents that are being called."""

    def __init__(self) -> None:
        self._agents: dict[AgentKey, AgentPlaces] = {}

    @asynccontextmanager
    async def take(self, key: AgentKey, concurrency: int) -> AsyncIterator[AgentPlaces]:
        """Hold one of an agent's `concurrency` places, as it is configured now."""
        agent = self._agents.setdefault(key, AgentPlaces())
        agent.limiter.total_tokens = concurrency
        agent.users += 1
        try:
            # Each session has a task, and asks for one place at a time.
            async with agent.limiter:
                yield agent
        finally:
            agent.users -= 1
            if not agent.users and agent.breaker.is_new:
                self._agents.pop(key, None)
