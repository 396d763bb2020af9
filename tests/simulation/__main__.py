"""``python -m tests.simulation``: one schedule with all that happened, or as many as there is time for."""

import time
from typing import Annotated

import typer

from tests.simulation.mutation import Mutation
from tests.simulation.world import run_schedule

SCHEDULES = 20_000


def main(
    seed: Annotated[int | None, typer.Option(help="Run this one again.")] = None,
    trace: Annotated[bool, typer.Option(help="Show all that happened in it.")] = False,
    schedules: Annotated[int, typer.Option(min=1, help="How many to run.")] = SCHEDULES,
    first: Annotated[int, typer.Option("--from", help="The first seed.")] = 0,
    mutation: Annotated[
        Mutation | None, typer.Option(help="Take this guarantee away: it must be noticed.")
    ] = None,
) -> None:
    """Run schedules of a simulated cluster; exit with 1 if anything is wrong in any."""
    seeds = range(first, first + schedules) if seed is None else (seed,)
    began = time.monotonic()
    wrong = 0
    for each in seeds:
        outcome = run_schedule(each, mutation)
        if trace:
            print(*outcome.trace, sep="\n")
        for problem in outcome.problems:
            print(f"seed {each}: {problem}", flush=True)
        wrong += bool(outcome.problems)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} schedules, {wrong} wrong, in {seconds:.0f} s")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
