"""How does the server live with clients that come and go, as people do?"""

from dataclasses import dataclass

from bench.loads.mixed import MixedPlan
from bench.measurement import measure
from bench.report import RATE, Better, Figure, Report, Round
from bench.scenarios.run import OptionsError, RunOptions, Target, run_rounds

REPEATS_MAX = 1000
"""Messages of a session within which a repeat is recognised: a promise of the protocol."""

CYCLES_MAX = 4
"""Bursts of others that fit between a client's last words and their repetition, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedOptions(RunOptions):
    """What to run, as it was resolved."""

    clients: int
    sessions: int | None = None
    """Two clients share one if None."""
    burst: int = 16
    in_flight: int = 4
    stay_seconds: float = 0.5
    away_seconds: float = 0.5
    seconds: float
    content_bytes: int = 200
    seed: int = 0


async def run_mixed(options: MixedOptions) -> Report:
    """Let clients come and go, in each round on a fresh server.

    Raises:
        OptionsError: What was asked for makes no sense.
        ChildError, ServerError, WireError: There is nothing to report.
    """
    check(options)

    async def one_round(target: Target) -> Round:
        made = await measure(
            [make_plan(options, target.url, target.run_id)],
            target.watched,
            target.sync,
            crash=target.crash,
        )
        made.figures.insert(1, _joins_per_second(made))
        return made

    return await run_rounds("mixed", options, one_round)


def check(options: MixedOptions) -> None:
    """Refuse what makes no sense.

    Raises:
        OptionsError: It makes none.
    """
    sessions = count_sessions(options)
    if sessions > options.clients:
        raise OptionsError("--sessions: each needs a client at least")
    members = -(-options.clients // sessions)
    if members * (options.burst + options.in_flight) * CYCLES_MAX > REPEATS_MAX:
        raise OptionsError(
            "--sessions: more would be said in one while a client is away than the server must"
            f" remember ({REPEATS_MAX:,} messages), so a repeat might be stored again"
        )


def count_sessions(options: MixedOptions) -> int:
    """Return how many sessions there are."""
    return options.sessions or max(1, options.clients // 2)


def make_plan(options: MixedOptions, url: str, run_id: str) -> MixedPlan:
    """Return what the generator is told."""
    return MixedPlan(
        url=url,
        run_id=run_id,
        seconds=options.seconds,
        warmup_seconds=options.warmup_seconds,
        clients=options.clients,
        sessions=count_sessions(options),
        content_bytes=options.content_bytes,
        burst=options.burst,
        in_flight=options.in_flight,
        stay_seconds=options.stay_seconds,
        away_seconds=options.away_seconds,
        seed=options.seed,
    )


def _joins_per_second(made: Round) -> Figure:
    """Return how many clients a second came back and caught up."""
    share = made.latencies["replay"].count / max(1, made.latencies["ack"].count)
    return Figure("joins", round(made.figure(RATE) * share, 1), "/s", Better.NEITHER)
