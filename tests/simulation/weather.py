"""What lies between a node and what it waits for: delays, broken connections, answers that never come."""

from random import Random

import trio

from storage import ArchiveUnavailableError
from tests.simulation.scheduler import CALLER

DELAY_SECONDS_MAX = 0.08
DISK_SECONDS_MAX = 0.03
SLOW_COMMIT_SECONDS_MAX = 3.0
AT_ONCE = 0.6
"""What is not delayed comes at once beyond this draw, without a turn of anybody else: that saves time."""

PATIENCE_SECONDS = 1.0
"""How long a client waits for a COMMIT that is slow; 40 seconds in truth, but all clocks here are as short."""


class Weather:
    """How bad it is now. All chances are drawn from the schedule's seed."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.archive_is_up = True
        self.cut: set[str] = set()
        """Nodes that do not reach the archive."""
        self.deaf: set[str] = set()
        """Nodes that hear of no COMMIT."""
        self.delayed = 0.1
        """How often a step takes time at all."""
        self.broken = 0.0
        """How often a connection breaks, at any step."""
        self.slow_commits = 0.0
        """How often a COMMIT is slow; then its outcome may come too late, and may be a rollback."""
        self.lost_answers = 0.0
        """How often a COMMIT is done and its answer lost."""

    def clear(self) -> None:
        """Let there be no faults any more."""
        self.archive_is_up = True
        self.cut.clear()
        self.deaf.clear()
        self.broken = self.slow_commits = self.lost_answers = 0.0

    async def travel(self) -> None:
        """Pass from a node to the archive, or back.

        Raises:
            ArchiveUnavailableError: it does not get through.
        """
        caller = CALLER.get()
        if caller is not None:
            await caller.step()
        await self._delay(DELAY_SECONDS_MAX)
        if caller is not None:
            if caller.name in self.cut:
                await trio.sleep(self.random.uniform(0.05, PATIENCE_SECONDS))
                raise ArchiveUnavailableError("no answer")
            if self.random.random() < self.broken:
                raise ArchiveUnavailableError("the connection broke")
        if not self.archive_is_up:
            raise ArchiveUnavailableError("nobody listens")

    async def turn_disk(self) -> None:
        """Wait for a disk."""
        await self._delay(DISK_SECONDS_MAX)

    def commit_seconds(self) -> float:
        """Return how long a COMMIT takes: 0 as a rule."""
        if self.random.random() < self.slow_commits:
            return self.random.uniform(0.01, SLOW_COMMIT_SECONDS_MAX)
        return 0.0

    def commit_arrives(self) -> bool:
        """Tell whether a slow COMMIT comes to anything."""
        return self.random.random() < 0.7

    def answer_is_lost(self) -> bool:
        """Tell whether the answer to a COMMIT that was done is lost."""
        caller = CALLER.get()
        if caller is not None and caller.name in self.deaf:
            return True
        return self.random.random() < self.lost_answers

    def noticed_after(self) -> float:
        """Return how long a server keeps the transaction of a client that is gone: not long, as a rule."""
        return 0.0 if self.random.random() < 0.7 else self.random.uniform(0, 2.0)

    async def _delay(self, seconds_max: float) -> None:
        drawn = self.random.random()
        if drawn < self.delayed:
            await trio.sleep(self.random.uniform(0, seconds_max))
        elif drawn < AT_ONCE:
            await trio.lowlevel.checkpoint()
