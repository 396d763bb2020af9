"""How many deliveries a second can one session make, and how long does one take to all who follow?"""

from dataclasses import dataclass

from bench.loads.fanout import FanoutPlan
from bench.measurement import measure
from bench.report import RATE, Better, Figure, Report, Round
from bench.scenarios.run import RunOptions, Target, run_rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutOptions(RunOptions):
    """What to run, as it was resolved."""

    subscribers: int
    in_flight: int = 1
    per_second: float | None = None
    """Open loop, at this rate."""
    seconds: float
    content_bytes: int = 200


async def run_fanout(options: FanoutOptions) -> Report:
    """Measure one writer and its audience, in each round anew.

    Raises:
        ChildError, ServerError, WireError: There is nothing to report.
    """

    async def one_round(target: Target) -> Round:
        plan = FanoutPlan(
            url=target.url,
            run_id=target.run_id,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            subscribers=options.subscribers,
            in_flight=options.in_flight,
            per_second=options.per_second,
            content_bytes=options.content_bytes,
        )
        made = await measure([plan], target.watched, target.sync, crash=target.crash)
        made.figures.insert(1, _acks_per_second(made))
        return made

    return await run_rounds("fanout", options, one_round)


def _acks_per_second(made: Round) -> Figure:
    """Return how fast the writer was; the rate is about deliveries."""
    share = made.latencies["ack"].count / max(1, made.latencies["delivery"].count)
    return Figure("acks", round(made.figure(RATE) * share, 1), "/s", Better.HIGHER)
