"""A circuit breaker for each agent: one that keeps failing is left alone for a while, then tried once. Pure.

::

                 failures_max in a row              the pause is over
      CLOSED ───────────────────────────▶ OPEN ───────────────────────▶ HALF_OPEN
        ▲                                   ▲                               │ │
        │                                   └──────────── FAILED ───────────┘ │
        └─────────────────────────────────────────────── SUCCEEDED ───────────┘

In HALF_OPEN one call is let through, the probe. Should it never be heard of again (the process that made it
may die), another is let through after `probe_seconds`. The pause doubles from one failed probe to the next.

A breaker is a value: each function returns the next one. Times are seconds on any clock that does not run
backwards. What counts as a failure is `retry.may_pass`: an agent that says 404 is well.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType


class State(Enum):
    """Whether calls are made."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class Event(Enum):
    """What happens to a breaker."""

    SUCCEEDED = auto()
    FAILED = auto()
    FAILED_TOO_OFTEN = auto()
    PAUSE_OVER = auto()


TRANSITIONS = MappingProxyType(
    {
        (State.CLOSED, Event.SUCCEEDED): State.CLOSED,
        (State.CLOSED, Event.FAILED): State.CLOSED,
        (State.CLOSED, Event.FAILED_TOO_OFTEN): State.OPEN,
        # Calls that were under way when it opened: the probe tells, not they.
        (State.OPEN, Event.SUCCEEDED): State.OPEN,
        (State.OPEN, Event.FAILED): State.OPEN,
        (State.OPEN, Event.PAUSE_OVER): State.HALF_OPEN,
        (State.HALF_OPEN, Event.SUCCEEDED): State.CLOSED,
        (State.HALF_OPEN, Event.FAILED): State.OPEN,
        (State.HALF_OPEN, Event.PAUSE_OVER): State.HALF_OPEN,
    }
)


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When it opens, and for how long."""

    failures_max: int = 5
    """In a row. With four retries of one message it is the second message that meets an open breaker."""
    pause_seconds: float = 5.0
    pause_seconds_max: float = 60.0
    probe_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """One agent's."""

    state: State = State.CLOSED
    failures: int = 0
    """In a row, while CLOSED."""
    openings: int = 0
    """In a row, without a success in between."""
    until: float = 0.0
    """When OPEN ends, or when HALF_OPEN lets another probe through."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether a call may be made now, and if not, when to ask again."""

    granted: bool
    ask_again_at: float = 0.0


def ask(breaker: Breaker, options: BreakerOptions, now: float) -> tuple[Breaker, Permission]:
    """Ask whether a call may be made; whoever is granted one reports how it ended."""
    if breaker.state is State.CLOSED:
        return breaker, Permission(granted=True)
    if now < breaker.until:
        return breaker, Permission(granted=False, ask_again_at=breaker.until)
    state = TRANSITIONS[breaker.state, Event.PAUSE_OVER]
    probing = replace(breaker, state=state, until=now + options.probe_seconds)
    return probing, Permission(granted=True)


def succeeded(breaker: Breaker) -> Breaker:
    """Report that a call came through."""
    state = TRANSITIONS[breaker.state, Event.SUCCEEDED]
    return Breaker() if state is State.CLOSED else breaker


def failed(breaker: Breaker, options: BreakerOptions, now: float) -> Breaker:
    """Report that a call failed in a way that speaks against the agent."""
    event = Event.FAILED
    if breaker.state is State.CLOSED and breaker.failures + 1 >= options.failures_max:
        event = Event.FAILED_TOO_OFTEN
    state = TRANSITIONS[breaker.state, event]
    if state is State.CLOSED:
        return replace(breaker, failures=breaker.failures + 1)
    if breaker.state is State.OPEN:
        return breaker
    # The exponent is bounded only so that the power stays a number.
    pause = options.pause_seconds * 2 ** min(breaker.openings, 32)
    until = now + min(pause, options.pause_seconds_max)
    return Breaker(State.OPEN, openings=breaker.openings + 1, until=until)
