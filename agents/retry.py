"""What follows a call that brought no answer. Pure: the clock and the dice are arguments.

Another try follows what may have been an accident: no connection, no answer in time, and what a server says when it is
too busy or away (429, 502, 503, 504). The pause doubles, and is drawn anew each time from the whole of it ("full
jitter", by Marc Brooker), so that many who failed together do not come back together; what the server asks for in
`Retry-After` counts as the least. By Standard Webhooks 410 says that nobody is there any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from agents.callerror import CallError

BASE_MS = 250
PAUSE_MS_MAX = 60_000
"""A minute: long for somebody who waits for an answer, and 20 tries are a quarter of an hour."""

RETRY_AFTER_MS_MAX = 3_600_000
"""What a server may ask for; more is taken for a mistake."""

RETRIED = frozenset({429, 502, 503, 504})
GONE = 410


@dataclass(frozen=True, slots=True)
class Refused:
    """A response that is no answer: its status, and what it asks for."""

    status: int
    retry_after: str | None = None

    @property
    def code(self) -> str:
        """Return the stable code for it."""
        return "agent_gone" if self.status == GONE else "agent_status"


def is_retried(outcome: Refused | CallError) -> bool:
    """Tell whether another try may go better."""
    if isinstance(outcome, CallError):
        return outcome.retryable
    return outcome.status in RETRIED


def pause_ms(outcome: Refused | CallError, attempt: int, dice: float, now_ms: int) -> int:
    """Return how long to wait after the attempt of this number; `dice` is from 0 to 1."""
    ceiling = min(PAUSE_MS_MAX, BASE_MS * 2 ** min(attempt - 1, 20))
    pause = int(ceiling * dice)
    if isinstance(outcome, Refused) and outcome.retry_after is not None:
        pause = max(pause, min(asked_ms(outcome.retry_after, now_ms), RETRY_AFTER_MS_MAX))
    return pause


def asked_ms(retry_after: str, now_ms: int) -> int:
    """Return how many milliseconds a `Retry-After` asks for (RFC 9110 §10.2.3); 0 if it cannot be read."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1_000
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1_000) - now_ms)


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header, whatever its case."""
    return next((value for key, value in headers.items() if key.lower() == name), None)
