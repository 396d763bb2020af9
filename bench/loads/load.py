"""What every load has in common, and how the generator drives one."""

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from bench.tally import Tally

RETRY_SECONDS = 0.1
"""Pause after a refusal that names no pause of its own."""


class LoadPlan(msgspec.Struct, kw_only=True):
    """What every generator is told."""

    url: str
    run_id: str
    """Makes the names of its users and sessions, so that no two generators share one."""
    seconds: float
    warmup_seconds: float
    messages_max: int | None = None
    """The run ends earlier when so many were counted; this is looked at once a second."""
    verify: bool = True
    """False for a server that cannot replay."""


class Load(Protocol):
    """Connections that are ready, and what is to be done with them. The generator calls in this order."""

    tally: Tally
    rated: str
    """The kind of latency whose number is the rate."""

    def begin(self) -> None:
        """Send the first messages."""
        ...

    def turn(self, seconds: float) -> None:
        """Serve what is to be served, for about so long at most."""
        ...

    def drain(self) -> None:
        """Send no more and wait for every answer; what stays unanswered was never promised.

        Raises:
            WireError: Some answers do not come.
        """
        ...

    def verify(self, progress: Callable[[str], None]) -> None:
        """Replay everything and compare."""
        ...

    def close(self) -> None:
        """Hang up on everybody."""
        ...

    @property
    def acked(self) -> int:
        """How many messages were acknowledged, warm-up included."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do, and the run may end before its time."""
        ...


def turn_until(load: Load, deadline: float) -> None:
    """Serve until then, or until the load is done."""
    while (now := time.perf_counter()) < deadline and not load.is_done:
        load.turn(deadline - now)
