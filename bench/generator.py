"""The closed-loop load generator: a process of its own that must never be the bottleneck.

Each connection writes to one session and keeps `in_flight` messages on the way: an ack makes room
for the next. One loop over an epoll set reads what arrived on a connection, takes the time once,
and answers it in one write. Frames are prebuilt but for the number of the message. A latency runs
from just before the write to just after the read that brought the ack.

It is closed-loop, so a stall delays the messages that would have been sent during it: the
percentiles say what these clients saw, not what an open arrival process would have seen.

After the measured seconds every answer is awaited, then every session is replayed over a new
connection from its beginning and compared with what was acknowledged (unless the plan says that the
server cannot replay).

``python -m bench.generator`` is spoken with in lines. It writes progress to stderr::

    stdin    a `Plan`          go on                          go on
    stdout            joined           measuring     drained          an `Outcome`
"""

import gc
import select
import sys
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from bench.channel import ANSWER_SECONDS_MAX, Channel, user_url
from bench.checker import Findings
from bench.environment import cpu_seconds, resident_bytes
from bench.histogram import Histogram
from bench.wire import WireError
from bench.writer import Writer

JOINED = "joined"
"""Every connection has its session, and nothing was sent."""
MEASURING = "measuring"
"""The warm-up is over."""
DRAINED = "drained"
"""Everything was answered; nothing was replayed."""

RETRY_SECONDS = 0.1
"""Pause after a refusal that names no pause of its own."""


class Plan(msgspec.Struct, kw_only=True):
    """What to do."""

    url: str
    connections: int
    in_flight: int
    seconds: float
    warmup_seconds: float
    content_bytes: int
    joined: bool
    run_id: str
    server_pid: int | None = None
    verify: bool = True


class Outcome(msgspec.Struct, kw_only=True):
    """What came of it."""

    rate_per_second: float
    acked: int
    refused: dict[str, int]
    ack_ms: dict[str, float]
    server_cpu: float | None
    server_rss_bytes: int | None
    generator_cpu: float
    verify_seconds: float
    verdict: dict[str, bool | int]
    """Empty if nothing was replayed."""
    examples: list[str]


class Load:
    """The run: warm up, measure, drain, verify."""

    def __init__(
        self,
        plan: Plan,
        progress: Callable[[str], None],
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._progress = progress
        self._reach = reach
        self._findings = Findings()
        self._latency_us = Histogram()
        self._refused: Counter[str] = Counter()
        self._parked: list[tuple[float, Writer]] = []
        self._open = True
        self._poll = select.epoll()
        self._writers: dict[int, Writer] = {}
        for place in range(plan.connections):
            writer = Writer(
                plan.url,
                f"bench-{plan.run_id}-{place}",
                self._findings,
                content_bytes=plan.content_bytes,
                joined=plan.joined,
            )
            self._writers[writer.fileno] = writer
            self._poll.register(writer.fileno, select.EPOLLIN)

    def run(self) -> Outcome:
        """Do it all."""
        self._reach(JOINED)
        for writer in self._writers.values():
            writer.send(self._plan.in_flight)
        self._turn_until(time.perf_counter() + self._plan.warmup_seconds)
        self._latency_us = Histogram()
        pid = self._plan.server_pid
        server_start = cpu_seconds(pid) if pid else 0.0
        own_start = time.process_time()
        self._reach(MEASURING)
        start = time.perf_counter()
        self._measure(start)
        elapsed = time.perf_counter() - start
        own_cpu = (time.process_time() - own_start) / elapsed
        server_cpu = (cpu_seconds(pid) - server_start) / elapsed if pid else None
        server_rss = resident_bytes(pid) if pid else None
        measured = self._latency_us
        self._drain()
        self._reach(DRAINED)
        verifying = time.perf_counter()
        if self._plan.verify:
            self._verify()
        return Outcome(
            rate_per_second=round(measured.count / elapsed, 1),
            acked=sum(len(writer.acks) for writer in self._writers.values()),
            refused=dict(self._refused),
            ack_ms=summarise_ms(measured),
            server_cpu=server_cpu,
            server_rss_bytes=server_rss,
            generator_cpu=own_cpu,
            verify_seconds=round(time.perf_counter() - verifying, 2),
            verdict=self._findings.verdict() if self._plan.verify else {},
            examples=self._findings.examples,
        )

    def _measure(self, start: float) -> None:
        end = start + self._plan.seconds
        while (now := time.perf_counter()) < end:
            before = self._latency_us.count
            self._turn_until(min(end, now + 1))
            rate = (self._latency_us.count - before) / (time.perf_counter() - now)
            self._progress(f"{now - start + 1:4.0f} s  {rate:9,.0f} acks/s")

    def _turn_until(self, deadline: float) -> None:
        while (now := time.perf_counter()) < deadline:
            self._turn(deadline - now)

    def _turn(self, timeout: float) -> None:
        """Serve every connection that has something to read, once."""
        if self._parked:
            timeout = min(timeout, RETRY_SECONDS / 10)
            self._unpark(time.perf_counter())
        record = self._latency_us.record
        writers = self._writers
        for fileno, _ in self._poll.poll(timeout):
            writer = writers[fileno]
            now, acks = writer.receive()
            started = writer.started
            for ack in acks:
                record(int((now - started[int(ack.ref)]) * 1e6))
            if self._open:
                writer.send(len(acks))
            if writer.refused:
                self._park(writer)

    def _park(self, writer: Writer) -> None:
        """Let a refused message rest: its place is taken by a new one after the pause."""
        now = time.perf_counter()
        for error in writer.refused:
            if error.ref is None or error.retry_after_ms is None:
                raise WireError(f"{writer.session}: refused for good: {error}")
            self._refused[error.code] += 1
            self._parked.append((now + max(error.retry_after_ms / 1000, RETRY_SECONDS), writer))
        writer.refused.clear()

    def _unpark(self, now: float) -> None:
        due = [writer for at, writer in self._parked if at <= now]
        self._parked = [(at, writer) for at, writer in self._parked if at > now]
        if self._open:
            for writer in due:
                writer.send(1)

    def _drain(self) -> None:
        """Send no more and wait for every answer; what stays unanswered was never promised."""
        self._open = False
        quiet_at = time.perf_counter() + ANSWER_SECONDS_MAX
        while self._unanswered() and time.perf_counter() < quiet_at:
            self._turn(0.1)
        if missing := self._unanswered():
            raise WireError(f"{missing} messages got no answer in {ANSWER_SECONDS_MAX:.0f} s")

    def _unanswered(self) -> int:
        answered = sum(len(writer.acks) for writer in self._writers.values())
        return (
            sum(writer.sent for writer in self._writers.values()) - answered - self._refused.total()
        )

    def _verify(self) -> None:
        gc.enable()
        for done, writer in enumerate(self._writers.values(), 1):
            writer.close()
            channel = Channel(user_url(self._plan.url, writer.user))
            writer.history().check(channel.replay(writer.session))
            channel.socket.close()
            if done % 16 == 0 or done == len(self._writers):
                self._progress(f"replayed {done} of {len(self._writers)} sessions")


def summarise_ms(latency_us: Histogram) -> dict[str, float]:
    """Return the percentiles that reports carry, in milliseconds."""
    percents = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
    summary = {name: latency_us.percentile(percent) / 1000 for name, percent in percents.items()}
    return summary | {"max": latency_us.max / 1000}


def main() -> None:
    """Run one plan."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    # Millions of acks are kept and none is garbage: collections would only stretch the tail.
    gc.disable()
    load = Load(plan, lambda line: print(line, file=sys.stderr, flush=True), _reach)
    print(msgspec.json.encode(load.run()).decode())


def _reach(stage: str) -> None:
    """Say where the run is, and wait where others may have something to do first."""
    print(stage, flush=True)
    if stage != MEASURING:
        sys.stdin.buffer.readline()


if __name__ == "__main__":
    main()
