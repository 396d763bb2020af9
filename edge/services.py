"""What the HTTP routes work with: one value, made by the composition root and passed down."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from agents import Registry
from edge.auth import Authenticator
from edge.limits import Limits
from edge.metrics import Metrics
from edge.origin import OriginPolicy
from runtime import Host
from storage import Archive, DispatchReader


class Closing:
    """The end of the process, for tasks that would otherwise wait for ever (event streams)."""

    def __init__(self) -> None:
        self.begun = False
        self._waits: set[trio.CancelScope] = set()

    def begin(self) -> None:
        """End every wait now and each later one at once."""
        self.begun = True
        self.interrupt()

    def interrupt(self) -> None:
        """End every wait now: there is something to look at."""
        for scope in self._waits:
            scope.cancel()

    @contextmanager
    def wait_at_most(self, seconds: float) -> Iterator[None]:
        """Leave the block after `seconds`, or when the process begins to end."""
        with trio.move_on_after(seconds) as scope:
            if self.begun:
                scope.cancel()
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a process that answer a request."""

    host: Host
    auth: Authenticator
    origins: OriginPolicy
    limits: Limits
    metrics: Metrics
    agents: Registry
    dispatches: DispatchReader
    """Calls of agents, in the archive."""
    role: str = "all"
    ring_archive: Archive | None = None
    """The archive, where this process takes part in a ring that it holds."""
    closing: Closing = field(default_factory=Closing)

    def __post_init__(self) -> None:
        # An event stream that waits for messages must notice that its key was revoked.
        self.auth.keys_changed = self.closing.interrupt
