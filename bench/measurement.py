"""One server under one load: what the generator saw, and what could be seen beside it meanwhile."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from bench.child import Child, open_child
from bench.environment import SyncLatency
from bench.generator import DRAINED, JOINED, MEASURING, Outcome, Plan
from bench.lag import LagProbe, Sample
from bench.outage import hold_archive, wait_caught_up


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one measurement."""

    outcome: Outcome
    sync: SyncLatency
    lag: Sequence[Sample] = ()
    """Empty if the server does not say."""
    catch_up_seconds: float | None = None
    """How long the archive took after it was held back, if it was."""


async def measure(
    plan: Plan, sync: SyncLatency, *, watched: bool = True, held_back: Path | None = None
) -> Measured:
    """Load a server; watch its flush lag, and hold back its archive until it was loaded.

    Raises:
        ChildError: The generator gave up.
        OutageError: The archive could not be held back, or did not catch up.
    """
    with closing(LagProbe(plan.url)) as probe:
        async with _generator(plan) as generator, AsyncExitStack() as outage:
            await _expect(generator, JOINED)
            if held_back is not None:
                await outage.enter_async_context(hold_archive(held_back))
            await generator.send_line()
            await _expect(generator, MEASURING)
            drained = partial(_expect, generator, DRAINED)
            await (probe.watch_until(drained) if watched else drained())
            await outage.aclose()
            catch_up_seconds = None if held_back is None else await wait_caught_up(probe)
            await generator.send_line()
            outcome = msgspec.json.decode(await generator.receive_line(), type=Outcome)
            await generator.end()
    return Measured(outcome, sync, probe.samples, catch_up_seconds)


@asynccontextmanager
async def open_bare(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """Start the bare server; yields its address and its process."""
    async with open_child("bench.bare", str(directory)) as bare:
        port = int(await bare.receive_line())
        yield f"ws://127.0.0.1:{port}/v1/ws", bare.pid
        await bare.end()


@asynccontextmanager
async def _generator(plan: Plan) -> AsyncIterator[Child]:
    async with open_child("bench.generator") as generator:
        await generator.send_line(msgspec.json.encode(plan))
        yield generator


async def _expect(generator: Child, stage: str) -> None:
    line = await generator.receive_line()
    assert line == stage.encode(), line
