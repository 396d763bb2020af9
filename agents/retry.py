"""What follows from how a call ended: done, again later, never again, or no more calls to this agent. Pure.

::

    2xx                              done
    429 502 503 504                  again, after Retry-After or a pause that doubles
    a CallError that is retryable    again, likewise
    410                              the agent is gone: disable it
    everything else, and the last attempt        given up

The pause has full jitter: it is drawn evenly from zero to a bound that doubles, so that callers who failed
together do not come back together. The random number is an argument, as is the time. What an agent asks for
with Retry-After is heeded up to a bound, and jitter comes on top of it for the same reason.

Whether an answer that broke off is repeated is not decided here: that depends on what was kept of it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agents.callerror import CallError

RETRIED = frozenset({429, 502, 503, 504})
GONE = 410

_is_seconds = re.compile(r"[0-9]{1,9}").fullmatch


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently."""

    attempts_max: int = 5
    """The first one counts."""
    pause_ms: int = 1_000
    """The bound of the first pause; each later one has twice the bound of the one before."""
    pause_ms_max: int = 60_000
    retry_after_ms_max: int = 15 * 60_000
    """An agent cannot have its users wait longer than this by asking for it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The agent answered with this status, and perhaps said when to come again."""

    status: int
    retry_after: str | None = None


Outcome = Answered | CallError


@dataclass(frozen=True, slots=True)
class Done:
    """The agent took it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The same call is made again after so long."""

    after_ms: int
    code: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The call is not made again; `exhausted` when it would have been, were attempts left."""

    code: str
    exhausted: bool


@dataclass(frozen=True, slots=True)
class Disable:
    """The agent says that it is gone for good: no more calls until it is enabled again."""

    code: str = "agent_gone"


Verdict = Done | Retry | GiveUp | Disable


def judge(
    outcome: Outcome, attempt: int, policy: RetryPolicy, *, now: datetime, random: float
) -> Verdict:
    """Return what follows from the outcome of attempt number `attempt`, from 1; `random` is in [0, 1)."""
    if isinstance(outcome, Answered):
        if 200 <= outcome.status < 300:
            return Done()
        if outcome.status == GONE:
            return Disable()
        code = "agent_status"
    else:
        code = outcome.code
    if not may_pass(outcome):
        return GiveUp(code, exhausted=False)
    if attempt >= policy.attempts_max:
        return GiveUp(code, exhausted=True)
    pause_ms = int(random * pause_bound_ms(attempt, policy))
    asked = outcome.retry_after if isinstance(outcome, Answered) else None
    asked_ms = parse_retry_after(asked, now)
    return Retry(min(asked_ms or 0, policy.retry_after_ms_max) + pause_ms, code)


def may_pass(outcome: Outcome) -> bool:
    """Tell whether the outcome says that the agent is unwell or busy, rather than that the call is wrong."""
    if isinstance(outcome, Answered):
        return outcome.status in RETRIED
    return outcome.retryable


def pause_bound_ms(attempt: int, policy: RetryPolicy) -> int:
    """Return what the pause after attempt number `attempt` is below."""
    # The exponent is bounded only so that no number of attempts makes a number of a million digits.
    return min(policy.pause_ms << min(attempt - 1, 32), policy.pause_ms_max)


def parse_retry_after(text: str | None, now: datetime) -> int | None:
    """Return how many milliseconds a Retry-After header asks for, or None where it says nothing understandable.

    It is a number of seconds or an HTTP date (RFC 9110 §10.2.3); a date that is past asks for 0.
    """
    if text is None:
        return None
    text = text.strip()
    if _is_seconds(text):
        return int(text) * 1_000
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0, int((at - now).total_seconds() * 1_000))
