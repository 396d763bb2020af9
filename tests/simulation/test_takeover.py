"""Replication and takeover, in the model: hundreds of schedules keep the promise, and any flaw is noticed in some."""

import pytest

from tests.simulation.succession import MACHINE_LOST, Succession
from tests.simulation.takeover import Flaw

CHUNK = 100
CHUNKS = 6


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_schedule_of_lost_owners_keeps_the_promise(chunk: int) -> None:
    problems = [
        (seed, problem)
        for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK)
        for problem in Succession(seed).run().problems
    ]

    assert problems == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("flaw", Flaw)
def test_a_flaw_of_the_takeover_is_noticed(flaw: Flaw) -> None:
    assert any(Succession(seed, flaw).run().problems for seed in range(CHUNK * CHUNKS))


def test_a_seed_of_the_takeover_replays_exactly() -> None:
    assert [Succession(seed).run().trace for seed in range(5)] == [
        Succession(seed).run().trace for seed in range(5)
    ]


def test_owners_are_taken_over_and_come_back() -> None:
    runs = [Succession(seed).run() for seed in range(60)]
    traces = "\n".join(line for run in runs for line in run.trace)

    assert sum(run.takeovers for run in runs) > 15
    assert traces.count(MACHINE_LOST) > 20
    assert traces.count("ended: fenced") > 2
