"""How long a call may take: to connect, to the first byte of the answer, between two pieces of it, in all.

A call is in one phase at a time: `connect` (waiting for room, looking the name up, TCP, TLS), `first_byte` (the
request is sent; an agent that sends its headers at once and then thinks is still in it), `idle` (from piece to
piece). Time that the reader of an answer takes between two pieces counts for the whole, and for no phase: a
disk that is slow here is not the agent's fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import trio

from agents.callerror import CallError

Phase = Literal["connect", "first_byte", "idle"]

_LATE: dict[Phase, str] = {
    "connect": "the agent did not accept a connection in",
    "first_byte": "the agent did not begin to answer in",
    "idle": "the agent sent nothing more for",
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """What one call is given."""

    connect_seconds: float = 10.0
    first_byte_seconds: float = 60.0
    idle_seconds: float = 60.0
    total_seconds: float = 300.0


class Watch:
    """Keeps one call to its deadlines: begun when it is made, asked whenever something is waited for."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._total_at = trio.current_time() + deadlines.total_seconds
        self._scope: trio.CancelScope | None = None
        self.phase: Phase = "connect"
        self._allowed = self._left = deadlines.connect_seconds
        self._phase_at = self._total_at

    def begin(self, phase: Phase) -> None:
        """Enter a phase, or the same once more, with all of its time; also in the middle of waiting."""
        self.phase = phase
        self._allowed = self._left = float(getattr(self._deadlines, f"{phase}_seconds"))
        if self._scope is not None:
            self._scope.deadline = self._deadline()

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Wait no longer inside than the phase and the whole call have left.

        Raises:
            CallError: agent_timeout_connect, _first_byte, _idle or _total.
        """
        with trio.CancelScope(deadline=self._deadline()) as scope:
            self._scope = scope
            try:
                yield
            finally:
                self._scope = None
                self._left = self._phase_at - trio.current_time()
        if scope.cancelled_caught:
            raise self._too_late()

    def _deadline(self) -> float:
        self._phase_at = trio.current_time() + self._left
        return min(self._phase_at, self._total_at)

    def _too_late(self) -> CallError:
        if self._total_at <= self._phase_at:
            total = self._deadlines.total_seconds
            return CallError("agent_timeout_total", f"the call was not over in {total:g} s")
        message = f"{_LATE[self.phase]} {self._allowed:g} s"
        return CallError(f"agent_timeout_{self.phase}", message)
