"""Connections that follow a session and say nothing: all they do is to answer pings."""

import time
from collections.abc import Callable, Sequence

from bench.channel import user_url
from bench.histogram import Histogram
from bench.loads.known import USER
from bench.poll import Poll
from bench.protocol import Error, Join, Joined, Leave, Ok, decode_answer, encode
from bench.stream import FrameStream
from bench.wire import ANSWER_SECONDS_MAX, WireError, client_frame

BATCH = 100
"""Connections that are made at once: fewer than a listening socket lets wait."""

TURN_SECONDS = 0.1


class IdleConnections:
    """Open connections of one user, each of which has joined one session."""

    def __init__(self, url: str) -> None:
        self._url = user_url(url, USER)
        self._poll = Poll()
        self._streams: list[FrameStream] = []
        self._answered = 0

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, sessions: Sequence[str], progress: Callable[[str], None]) -> None:
        """Connect and join each of these sessions, over a connection of its own.

        Raises:
            WireError: The server does not let us.
        """
        for first in range(0, len(sessions), BATCH):
            batch = sessions[first : first + BATCH]
            wanted = self._answered + len(batch)
            for session in batch:
                self._connect(session)
            self._wait_answers(wanted)
            if len(self) % (10 * BATCH) == 0:
                progress(f"{len(self):,} connections")

    def _connect(self, session: str) -> None:
        stream = FrameStream.connect(self._url, f"connection {len(self)}")
        stream.write(client_frame(encode(Join(ref="idle", session=session))))
        self._poll.add(stream.fileno(), lambda: self._read(stream))
        self._streams.append(stream)

    def _read(self, stream: FrameStream) -> None:
        for payload in stream.read():
            answer = decode_answer(payload)
            if isinstance(answer, Error):
                raise WireError(f"{stream.name}: refused: {answer}")
            self._answered += isinstance(answer, Joined | Ok)

    def idle(self, seconds: float) -> None:
        """Answer pings for so long.

        Raises:
            WireError: The server hung up on one.
        """
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            self._poll.turn(min(TURN_SECONDS, end - now))

    def time_joins(self, sessions: Sequence[str]) -> Histogram:
        """Have the first connection join and leave each, one at a time; the joins in microseconds."""
        latency = Histogram()
        stream = self._streams[0]
        for session in sessions:
            began = time.perf_counter()
            self._ask(stream, Join(ref="timed", session=session))
            latency.record(int((stream.read_at - began) * 1e6))
            self._ask(stream, Leave(ref="timed", session=session))
        return latency

    def _ask(self, stream: FrameStream, request: Join | Leave) -> None:
        wanted = self._answered + 1
        stream.write(client_frame(encode(request)))
        self._wait_answers(wanted)

    def _wait_answers(self, wanted: int) -> None:
        end = time.perf_counter() + ANSWER_SECONDS_MAX
        while self._answered < wanted:
            if time.perf_counter() > end:
                raise WireError(f"no answer in {ANSWER_SECONDS_MAX:.0f} s")
            self._poll.turn(TURN_SECONDS)

    def close(self) -> None:
        """Hang up."""
        for stream in self._streams:
            self._poll.remove(stream.fileno())
            stream.close()
        self._streams.clear()
