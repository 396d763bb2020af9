"""A circuit breaker: an agent that fails again and again is left alone for a while. Pure: `now` is an argument.

::

    closed ──── FAILURES_MAX failures in a row ───▶ open
      ▲                                              │ OPEN_SECONDS
      └──── it goes well ──── half open ◀────────────┘
                                 │  ▲
                                 └──┘ it fails: open again

Half open one call is let through; the others wait for what becomes of it. What an agent answers with a status that is no
accident (400, 401, …) is not counted: it is there.
"""

FAILURES_MAX = 5
OPEN_SECONDS = 10.0


class Breaker:
    """One agent's breaker, on one node."""

    __slots__ = ("_failures", "_opened_at", "_probing")

    def __init__(self) -> None:
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_new(self) -> bool:
        """Whether there is nothing to remember."""
        return not self._failures

    def wait_seconds(self, now: float) -> float:
        """Return how long to wait before a call; 0: make it now, and tell what comes of it."""
        if self._opened_at is None:
            return 0.0
        if self._probing:
            return OPEN_SECONDS
        left = self._opened_at + OPEN_SECONDS - now
        if left > 0:
            return left
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """A call went well."""
        self._failures, self._opened_at, self._probing = 0, None, False

    def failed(self, now: float) -> None:
        """A call failed by what may be an accident."""
        self._failures += 1
        self._probing = False
        if self._failures >= FAILURES_MAX or self._opened_at is not None:
            self._opened_at = now

    def abandoned(self) -> None:
        """A call ended by our own doing: nothing is known."""
        self._probing = False
