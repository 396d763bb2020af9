"""Thousands of schedules of a simulated cluster keep the promise; and any broken guarantee is noticed in some."""

import os
import subprocess
import sys
from itertools import count, islice

import pytest

from tests.mutants.run import ROOT
from tests.simulation.faults import Fault, draw_plan
from tests.simulation.mutation import Mutation
from tests.simulation.world import run_schedule

SCHEDULES = 2_000
CHUNKS = 20
"""So that test processes can share them, and none takes long on a machine that does much else."""

MUTATION_SCHEDULES = 800

NEEDED = {
    Mutation.EPOCH_WITHOUT_LOCK: {Fault.HANG, Fault.RETIRE},
    Mutation.BATCH_WITHOUT_LOCK: {Fault.HANG, Fault.RETIRE},
    Mutation.READ_BEFORE_SEAL: {Fault.HANG, Fault.RETIRE},
    Mutation.EPOCH_DIFFERENCE: {Fault.RESTORE},
    Mutation.NOTHING_SET_ASIDE: {Fault.KILL_AT_TAKEOVER, Fault.RETIRE},
}
"""What has to come together before a mutation is noticed, where that is rare: only such schedules are tried."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_schedule_of_faults_keeps_the_promise(chunk: int) -> None:
    size = SCHEDULES // CHUNKS
    problems = [
        (seed, problem)
        for seed in range(chunk * size, (chunk + 1) * size)
        for problem in run_schedule(seed).problems
    ]

    assert problems == [], "replay it: python -m tests.simulation --trace --seed …"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", Mutation)
def test_a_guarantee_that_is_taken_away_is_noticed(mutation: Mutation) -> None:
    needed = NEEDED.get(mutation, set())
    fitting = (
        seed for seed in count() if needed <= {event.fault for event in draw_plan(seed).events}
    )

    assert any(
        run_schedule(seed, mutation).problems for seed in islice(fitting, MUTATION_SCHEDULES)
    )


def test_a_seed_replays_exactly_also_in_another_process() -> None:
    seeds = (1, 2, 3)
    first = [run_schedule(seed).trace for seed in seeds]
    again = [run_schedule(seed).trace for seed in seeds]
    script = (
        "from tests.simulation.world import run_schedule\n"
        f"for seed in {seeds}: print(*run_schedule(seed).trace, sep='\\n')"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert again == first
    assert elsewhere.stdout.splitlines() == [line for trace in first for line in trace]
    assert first[0] != first[1]


def test_schedules_are_about_something() -> None:
    """Slots move, nodes die and are taken over, messages are acknowledged: a simulation in which little happens finds nothing."""
    outcomes = [run_schedule(seed) for seed in range(40)]
    traces = "\n".join(line for outcome in outcomes for line in outcome.trace)

    assert sum(outcome.messages for outcome in outcomes) > 400
    assert traces.count(" claims ") > 80
    assert traces.count(" releases ") > 40
    assert traces.count(" ended: killed") > 40
    assert traces.count("ended: FencedError") > 0
    assert traces.count("(late)") > 5
    assert traces.count(" adds ") > 200
    assert traces.count(" takes over ") > 6
    assert traces.count(" inherits ") > 1
    assert traces.count("machine lost for ever") > 9


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {event.fault for seed in range(100) for event in draw_plan(seed).events}

    assert drawn == set(Fault)
