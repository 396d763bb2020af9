"""The load generator: a process of its own that must never be the bottleneck.

One loop over an epoll set reads what arrived on a connection, takes the time once, and answers it in one
write. Frames are prebuilt but for the number of the message. What is done with the connections is a load
(`bench/loads`). After the measured seconds every answer is awaited, then every session is replayed over a new
connection from its beginning and compared with what was acknowledged.

``python -m bench.generator`` is spoken with in lines. It writes progress to stderr::

    stdin    a plan          go on                                    go on
    stdout           ready           measuring  measured  drained             an `Outcome`
"""

import gc
import sys
import time
from collections.abc import Callable

import msgspec

from bench.histogram import PackedHistogram
from bench.loads.append import AppendPlan, Appends
from bench.loads.chat import Chat, ChatPlan
from bench.loads.fanout import Fanout, FanoutPlan
from bench.loads.load import Load, LoadPlan, turn_until
from bench.loads.mixed import Mixed, MixedPlan
from bench.report import Second
from bench.wire import WireError

READY = "ready"
"""Every connection is set up, and nothing was sent."""
MEASURING = "measuring"
"""The warm-up is over."""
MEASURED = "measured"
"""What counts is over; answers are still awaited."""
DRAINED = "drained"
"""Everything was answered; nothing was replayed."""

PAUSES = {READY, DRAINED}
"""Where others may have something to do first."""

Plan = AppendPlan | ChatPlan | FanoutPlan | MixedPlan

_decode_plan = msgspec.json.Decoder(Plan).decode


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a plan."""

    seconds: float
    """How long it was measured."""
    counted: int
    """How many there were meanwhile of what the rate is about."""
    acked: int
    """Warm-up included."""
    refused: dict[str, int]
    latencies: dict[str, PackedHistogram]
    timeline: list[Second]
    verify_seconds: float
    verdict: dict[str, bool | int]
    """Empty if nothing was replayed."""
    examples: list[str]
    waits: dict[str, list[tuple[float, float]]] = {}
    """By session, where the plan asked for it: when each message was due, and acknowledged, by the machine's clock."""


def open_load(plan: Plan) -> Load:
    """Set up every connection of a plan.

    Raises:
        WireError: The server does not let us.
    """
    match plan:
        case AppendPlan():
            return Appends(plan)
        case ChatPlan():
            return Chat(plan)
        case FanoutPlan():
            return Fanout(plan)
        case MixedPlan():
            return Mixed(plan)


def run_load(
    load: Load,
    plan: LoadPlan,
    progress: Callable[[str], None],
    reach: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Warm up, measure, drain, verify; `reach` is told each stage, and may wait there."""
    reach(READY)
    load.begin()
    turn_until(load, time.perf_counter() + plan.warmup_seconds)
    load.tally.restart()
    reach(MEASURING)
    seconds = _measure(load, plan, progress)
    counted = load.tally.count(load.rated)
    reach(MEASURED)
    load.drain()
    # What was on the way is waited for, and counts among the waits: else the longest would be left out.
    load.tally.fold()
    latencies = {kind: latency.pack() for kind, latency in load.tally.latencies.items()}
    reach(DRAINED)
    verifying = time.perf_counter()
    if plan.verify:
        gc.enable()
        load.verify(progress)
    load.close()
    findings = load.tally.findings
    return Outcome(
        seconds=seconds,
        counted=counted,
        acked=load.acked,
        refused=dict(load.tally.refused),
        latencies=latencies,
        timeline=load.tally.timeline,
        verify_seconds=round(time.perf_counter() - verifying, 2),
        verdict=findings.verdict() if plan.verify else {},
        examples=findings.examples,
        waits=load.waits() if isinstance(load, Appends) else {},
    )


def _measure(load: Load, plan: LoadPlan, progress: Callable[[str], None]) -> float:
    """Turn until the time is up, enough was counted or all is done; return how long it took."""
    start = now = time.perf_counter()
    end = start + plan.seconds
    enough = float("inf") if plan.messages_max is None else plan.messages_max
    while now < end and not load.is_done and load.tally.count(load.rated) < enough:
        turn_until(load, min(end, now + 1))
        then, now = now, time.perf_counter()
        second = load.tally.close_second(now - then, load.rated)
        progress(
            f"{now - start:5.0f} s  {second.rate_per_second:9,.0f} /s"
            f"  p99 {second.ack_p99_ms:7.2f} ms"
        )
    return now - start


def main() -> None:
    """Run one plan; why it could not be is the last line on stderr."""
    try:
        _run_plan()
    except (OSError, WireError) as error:
        print(f"generator: {error}", file=sys.stderr)
        sys.exit(1)


def _run_plan() -> None:
    plan = _decode_plan(sys.stdin.buffer.readline())
    # Millions of acks are kept and none is garbage: collections would only stretch the tail.
    gc.disable()
    load = open_load(plan)
    outcome = run_load(load, plan, lambda line: print(line, file=sys.stderr, flush=True), _reach)
    print(msgspec.json.encode(outcome).decode())


def _reach(stage: str) -> None:
    print(stage, flush=True)
    if stage in PAUSES:
        sys.stdin.buffer.readline()


if __name__ == "__main__":
    main()
