"""``python -m tests.crash.soak_ring``: kills of owners and edges, and changes of the ring, under load."""

import random
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import trio
import typer

from bench.checker import Kind
from bench.postgres import open_postgres
from bench.server import Server, end_on_sigterm, sqlite_url
from tests.crash.cluster import Cluster, run_cluster
from tests.crash.rounds import CrashResult, Load

BETWEEN_SECONDS = (0.0, 0.6)
"""Between two disturbances, beside the time that the one before took."""

ANSWER_SECONDS_MAX = 30.0
"""Within so long after a disturbance messages are acknowledged again."""


class Disturber:
    """Kills and changes, in random order, as many as were asked for."""

    def __init__(self, kills: int, changes: int, seed: int) -> None:
        self.pauses: list[float] = []
        """How long after each disturbance the next twenty messages took, in seconds."""
        self._left = ["kill"] * kills + ["change"] * changes
        self._rng = random.Random(seed)

    async def disturb(self, cluster: Cluster, load: Load) -> None:
        """Do them all, and leave the cluster whole."""
        self._rng.shuffle(self._left)
        for number, what in enumerate(self._left, 1):
            await trio.sleep(self._rng.uniform(*BETWEEN_SECONDS))
            if what == "kill":
                victim: Server = self._rng.choice([*cluster.owners, cluster.edge])
                await victim.crash()
            else:
                await cluster.change_something(self._rng)
            began = trio.current_time()
            enough = load.acknowledged + 20
            with trio.fail_after(ANSWER_SECONDS_MAX):
                while load.acknowledged < enough:
                    await trio.sleep(0.01)
            self.pauses.append(trio.current_time() - began)
            if number % 10 == 0:
                _say(f"{number} of {len(self._left)}, {load.acknowledged:,} acknowledged")
        await cluster.until_settled()


def main(
    kills: Annotated[int, typer.Option(min=0, help="Of owners and edges.")] = 200,
    changes: Annotated[int, typer.Option(min=0, help="Drains, undrains and weights.")] = 100,
    owners: Annotated[int, typer.Option(min=2)] = 3,
    archive: Annotated[str, typer.Option(help="sqlite, postgres or both.")] = "both",
    seed: Annotated[int | None, typer.Option(help="Repeat a run; random by default.")] = None,
    directory: Annotated[
        Path, typer.Option(help="Where fresh data directories are made.", resolve_path=True)
    ] = Path(".ringlog"),
) -> None:
    """Disturb a cluster under real clients; exit with 1 if anything is wrong."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    directory.mkdir(parents=True, exist_ok=True)
    _say(f"seed {seed}")
    broken = False
    for kind in ("sqlite", "postgres") if archive == "both" else (archive,):
        disturber = Disturber(kills, changes, seed)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"ring-{kind}-", dir=directory) as name:
            result = _run(kind, Path(name), disturber, owners)
        seconds = time.monotonic() - began
        print(f"{kind}: {_summary(result, disturber)} in {seconds:.0f} s (seed {seed})")
        for example in result.findings.examples:
            print(f"  {example}")
        broken |= not result.findings.ok
    raise typer.Exit(1 if broken else 0)


def _run(kind: str, directory: Path, disturber: Disturber, owners: int) -> CrashResult:
    if kind == "sqlite":
        return trio.run(run_cluster, directory, sqlite_url(directory), disturber.disturb, owners)
    with open_postgres() as postgres:
        url = postgres.url(postgres.create_database())
        return trio.run(run_cluster, directory, url, disturber.disturb, owners)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _summary(result: CrashResult, disturber: Disturber) -> str:
    verdict = ", ".join(f"{result.findings.counts[kind]} {kind}" for kind in Kind)
    return (
        f"{len(disturber.pauses)} disturbances, {result.reconnects:,} reconnects,"
        f" {result.sessions:,} sessions, {result.acknowledged:,} acknowledged,"
        f" {result.replayed:,} replayed, {result.archived:,} archived: {verdict};"
        f" longest wait for the next messages {max(disturber.pauses):.1f} s"
    )


if __name__ == "__main__":
    end_on_sigterm()
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
