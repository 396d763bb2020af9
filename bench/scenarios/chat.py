"""How does the server bear seven thousand real conversations, at a multiple of their pace?"""

from array import array
from dataclasses import dataclass

import trio

from bench.conversations import load_conversations
from bench.loads.chat import ChatPlan
from bench.loads.schedule import busiest_second, due_seconds, run_seconds, written_seconds
from bench.loads.score import ENTRANCE_SECONDS
from bench.measurement import measure
from bench.report import Better, Figure, Report, Round
from bench.scenarios.run import OptionsError, RunOptions, Target, run_rounds

GRACE_SECONDS = 30.0
"""A server that lags behind the conversations by more than this is not measured further."""

FOLLOWED_MAX = 1000
"""Sessions that one connection may follow: a limit of the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions(RunOptions):
    """What to play, as it was resolved."""

    conversations: int | None = 2000
    """The first so many of the data set; all if None."""
    speed_up: float = 1000.0
    connections: int = 64
    warmup_seconds: float = 0.0
    """Each message is played once: none of them is for warming up."""


async def run_chat(options: ChatOptions) -> Report:
    """Play the conversations, in each round to a fresh server.

    Raises:
        OptionsError: What was asked for makes no sense.
        ChildError, ServerError, WireError: There is nothing to report.
    """
    if options.connections < 2:
        raise OptionsError("--connections: who reads is on another one than who writes")
    due = await trio.to_thread.run_sync(_due, options)
    if -(-len(due) // options.connections) > FOLLOWED_MAX:
        raise OptionsError(f"--connections: one may follow {FOLLOWED_MAX:,} sessions")

    async def one_round(target: Target) -> Round:
        plan = ChatPlan(
            url=target.url,
            run_id=target.run_id,
            seconds=ENTRANCE_SECONDS + run_seconds(due) + GRACE_SECONDS,
            warmup_seconds=options.warmup_seconds,
            conversations=options.conversations,
            speed_up=options.speed_up,
            connections=options.connections,
        )
        made = await measure([plan], target.watched, target.sync, crash=target.crash)
        busiest = Figure(
            "due in the busiest second", busiest_second(due), "messages", Better.NEITHER
        )
        made.figures.insert(1, busiest)
        return made

    return await run_rounds("chat", options, one_round)


def _due(options: ChatOptions) -> list["array[float]"]:
    conversations = load_conversations("", options.conversations)
    return due_seconds([written_seconds(each) for each in conversations], options.speed_up)
