"""Writers on one poll: reading their answers, letting the refused rest, and checking them in the end."""

import time
from collections.abc import Callable
from functools import partial

from bench.loads.load import RETRY_SECONDS
from bench.poll import Poll
from bench.tally import Tally
from bench.wire import ANSWER_SECONDS_MAX, WireError
from bench.writer import Writer


class Writers:
    """All connections that write, each with sessions of its own."""

    def __init__(self, poll: Poll, tally: Tally, on_answers: Callable[[Writer, int], None]) -> None:
        """Call `on_answers` with a writer and how many of its messages made room for another one."""
        self.all: list[Writer] = []
        self._poll = poll
        self._tally = tally
        self._on_answers = on_answers
        self._parked: list[tuple[float, Writer]] = []

    def add(self, writer: Writer) -> None:
        """Serve this one too, and whoever was pinged while it was set up: that may take a minute for them all."""
        self.all.append(writer)
        self._poll.add(writer.stream.fileno(), partial(self._serve, writer))
        self.turn(0.0)

    def _serve(self, writer: Writer) -> None:
        acked = writer.read()
        if acked:
            self._on_answers(writer, acked)
        if writer.refused:
            self._park(writer)

    def _park(self, writer: Writer) -> None:
        """Let a refused message rest: its place is taken by a new one after the pause."""
        now = time.perf_counter()
        for error in writer.refused:
            if error.ref is None or error.retry_after_ms is None:
                raise WireError(f"{writer.user}: refused for good: {error}")
            self._tally.refused[error.code] += 1
            self._parked.append((now + max(error.retry_after_ms / 1000, RETRY_SECONDS), writer))
        writer.refused.clear()

    def turn(self, seconds: float) -> None:
        """Serve each writer that has something to read, once."""
        if self._parked:
            seconds = min(seconds, RETRY_SECONDS / 10)
            self._unpark(time.perf_counter())
        self._poll.turn(seconds)

    def _unpark(self, now: float) -> None:
        due = [writer for at, writer in self._parked if at <= now]
        self._parked = [(at, writer) for at, writer in self._parked if at > now]
        for writer in due:
            self._on_answers(writer, 1)

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return sum(writer.acked for writer in self.all)

    @property
    def unanswered(self) -> int:
        """How many messages are on the way."""
        sent = sum(writer.sent for writer in self.all)
        return sent - self.acked - self._tally.refused.total()

    def drain(self) -> None:
        """Wait for every answer.

        Raises:
            WireError: Some do not come.
        """
        heard_at = time.perf_counter()
        missing = self.unanswered
        while missing and time.perf_counter() < heard_at + ANSWER_SECONDS_MAX:
            self.turn(0.1)
            if self.unanswered < missing:
                heard_at = time.perf_counter()
            missing = self.unanswered
        if missing:
            raise WireError(f"{missing} messages got no answer in {ANSWER_SECONDS_MAX:.0f} s")

    def verify(self, progress: Callable[[str], None]) -> None:
        """Replay every session from its beginning and compare it with what was acknowledged."""
        for done, writer in enumerate(self.all, 1):
            self._poll.remove(writer.stream.fileno())
            writer.check_replays()
            if done % 16 == 0 or done == len(self.all):
                progress(f"replayed the sessions of {done} of {len(self.all)} connections")

    def close(self) -> None:
        """Hang up on those that still talk."""
        for writer in self.all:
            writer.stream.close()
