"""``python -m tests.crash.soak_ring``: every fault of docs/faults.md, many times, under load, with figures."""

import gc
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer

from bench.checker import Kind
from bench.cluster import Cluster, ClusterOptions, Site
from bench.postgres import TEST_SETTINGS, PrivatePostgresServer, open_private_postgres
from bench.server import end_on_sigterm, sqlite_url
from tests.crash import network, phases
from tests.crash.cluster import run_clients, run_cluster
from tests.crash.crowd import Crowd, CrowdOptions
from tests.crash.outages import Database
from tests.crash.phases import Phase
from tests.crash.rounds import CrashResult
from tests.fakes.proxy import open_cutting_proxy

P99_SECONDS_MAX = 1.0
WAIT_SECONDS_MAX = 5.0
"""How long a session may pause while the ring changes: 99 of 100 pauses, and any."""

POSTGRES_ONLY = {"pg-stops", "cuts", "takeovers", "losses", "takeover-failpoints"}

NO_TAKEOVER = {"takeover-seconds": "0"}
SETTINGS = {
    "pauses": NO_TAKEOVER,
    "cuts": NO_TAKEOVER,
    "takeovers": {"takeover-seconds": "3"},
    "losses": {"takeover-seconds": "3"},
    "takeover-failpoints": {"takeover-seconds": "2"},
}
"""Options of the servers, by phase. Where nobody takes over, an owner must go on whatever happened to it."""


class Soak:
    """One phase after another, and their figures."""

    def __init__(
        self, owners: int, seed: int, rate: float, cut_seconds_max: float, directory: Path
    ) -> None:
        self.ok = True
        self._owners = owners
        self._seed = seed
        self._rate = rate
        self._cut_seconds_max = cut_seconds_max
        self._directory = directory

    def run(self, name: str, rounds: int, archive: str) -> None:
        """Run one phase."""
        phase = Phase(name, rounds, random.Random(f"{self._seed} {name} {archive}"), _say)
        began = time.monotonic()
        crowd: Crowd | None = None
        with ExitStack() as stack:
            directory = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix=f"ring-{name}-", dir=self._directory)
                )
            )
            if archive == "sqlite":
                url = sqlite_url(directory)
                postgres = None
            else:
                settings = TEST_SETTINGS
                if name == "cuts":
                    settings = settings | {"listen_addresses": "*"}
                postgres = stack.enter_context(open_private_postgres(settings))
                url = postgres.url(postgres.create_database())
            if name == "kills":
                kill = partial(phases.kill, phase)
                result = trio.run(run_cluster, directory, url, kill, self._owners)
            else:
                crowd = self._crowd(name, url)
                result = trio.run(self._disturb, phase, directory, url, crowd, postgres)
        self._conclude(phase, archive, result, crowd, time.monotonic() - began)

    def _crowd(self, name: str, url: str) -> Crowd:
        if name == "changes":
            return Crowd(CrowdOptions(url, rate=self._rate))
        return Crowd(CrowdOptions(url, sessions=96, connections=4, rate=200.0))

    async def _disturb(
        self,
        phase: Phase,
        directory: Path,
        url: str,
        crowd: Crowd,
        postgres: PrivatePostgresServer | None,
    ) -> CrashResult:
        async def disturb(cluster: Cluster) -> None:
            await crowd.until_flowing()
            match phase.name:
                case "changes":
                    await phases.change(phase, cluster, crowd)
                case "pauses":
                    await phases.pause(phase, cluster, crowd)
                case "takeovers":
                    await phases.pause(phase, cluster, crowd, taken_over=True)
                case "losses":
                    await phases.lose(phase, cluster, crowd)
                case "takeover-failpoints":
                    await phases.die_taking_over(phase, cluster, crowd)
                case "failpoints":
                    await phases.die(phase, cluster, crowd)
                case "pg-stops":
                    await phases.upset_database(phase, cluster, crowd, database)
                case _:
                    await phases.cut(phase, cluster, crowd, machines, self._cut_seconds_max)

        owners = 2 if phase.name == "takeover-failpoints" else self._owners
        names = [f"owner-{number}" for number in range(owners)]
        sites: dict[str, Site] = {}
        with ExitStack() as stack:
            if phase.name == "pg-stops":
                assert postgres is not None
                proxy = stack.enter_context(open_cutting_proxy(postgres.port))
                name = url.rpartition("/")[2]
                database = Database(postgres, name, proxy, phase.rng)
                behind = Site(f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}")
                sites = dict.fromkeys((*names, "edge-0"), behind)
            if phase.name == "cuts":
                assert postgres is not None
                machines = stack.enter_context(network.open_machines(self._owners))
                sites = {
                    name: machine.site(url) for name, machine in zip(names, machines, strict=True)
                }
            options = ClusterOptions(
                directory, url, owners, settings=SETTINGS.get(phase.name, {}), sites=sites
            )
            return await run_clients(options, crowd, disturb)

    def _conclude(
        self, phase: Phase, archive: str, result: CrashResult, crowd: Crowd | None, seconds: float
    ) -> None:
        """Say what a phase came to."""
        self.ok &= result.findings.ok
        verdict = ", ".join(f"{result.findings.counts[kind]} {kind}" for kind in Kind)
        lines = [
            (
                f"{archive} {phase.name}: {len(phase.recoveries)} rounds in {seconds:.0f} s:"
                f" {result.reconnects:,} reconnects, {result.sessions:,} sessions,"
                f" {result.acknowledged:,} acknowledged, {result.replayed:,} replayed,"
                f" {result.archived:,} archived: {verdict}"
            ),
            *(f"  {example}" for example in result.findings.examples),
            f"  {_counts(phase.counts)}",
            f"  until it went on: {_spread(sorted(phase.recoveries))}",
        ]
        if crowd is not None and crowd.pauses:
            pauses = sorted(crowd.pauses)
            lines.append(f"  longest wait of each session in each round: {_spread(pauses)}")
            if phase.name == "changes":
                smooth = _at(pauses, 0.99) <= P99_SECONDS_MAX and pauses[-1] <= WAIT_SECONDS_MAX
                self.ok &= smooth
                verdict = "as it must be" if smooth else "TOO LONG"
                lines += [
                    f"  in all rounds: {_spread(crowd.waits)}",
                    f"  {crowd.rate:,.0f} messages a second; waits {verdict}",
                ]
        print("\n".join(lines), flush=True)


def main(  # noqa: PLR0917 - each is an option
    kills: Annotated[int, typer.Option(min=0, help="Of owners and edges.")] = 200,
    changes: Annotated[int, typer.Option(min=0, help="Drains, undrains, weights, restarts.")] = 100,
    pg_stops: Annotated[int, typer.Option(min=0, help="Faults of PostgreSQL.")] = 50,
    cuts: Annotated[int, typer.Option(min=0, help="Of the network; PostgreSQL only.")] = 50,
    pauses: Annotated[int, typer.Option(min=0, help="SIGSTOP of an owner.")] = 50,
    takeovers: Annotated[
        int, typer.Option(min=0, help="SIGSTOP past takeover; PostgreSQL only.")
    ] = 50,
    losses: Annotated[
        int, typer.Option(min=0, help="Owners lost with their disks; PostgreSQL only.")
    ] = 20,
    failpoints: Annotated[int, typer.Option(min=0, help="Deaths at each failpoint.")] = 5,
    owners: Annotated[int, typer.Option(min=2)] = 3,
    archive: Annotated[str, typer.Option(help="sqlite, postgres or both.")] = "both",
    rate: Annotated[float, typer.Option(help="Messages a second while the ring changes.")] = 1_050,
    cut_seconds_max: Annotated[
        float, typer.Option(help="Of cuts; a link is given up after 4 s.")
    ] = 7,
    seed: Annotated[int | None, typer.Option(help="Repeat a run; random by default.")] = None,
    directory: Annotated[
        Path, typer.Option(help="Where fresh data directories are made.", resolve_path=True)
    ] = Path(".ringlog"),
) -> None:
    """Disturb a cluster under real clients; exit with 1 if anything is wrong."""
    counts = {
        "kills": kills,
        "changes": changes,
        "pg-stops": pg_stops,
        "cuts": cuts if archive != "sqlite" else 0,
        "pauses": pauses,
        "takeovers": takeovers,
        "losses": losses,
        "failpoints": failpoints,
        "takeover-failpoints": failpoints,
    }
    lacking = network.missing() if counts["cuts"] else None
    if counts["cuts"] and lacking is None and not network.is_own():
        again = network.command("tests.crash.soak_ring", *sys.argv[1:])
        os.execvp(again[0], again)
    if network.is_own():
        network.raise_loopback()
    # The users run in this process: its pauses would be counted as the cluster's. Their histories grow, and end with it.
    gc.disable()
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    directory.mkdir(parents=True, exist_ok=True)
    soak = Soak(owners, seed, rate, cut_seconds_max, directory)
    _say(f"seed {seed}")
    for kind in ("sqlite", "postgres") if archive == "both" else (archive,):
        for name, rounds in counts.items():
            possible = kind == "postgres" or name not in POSTGRES_ONLY
            if rounds and possible and (name != "cuts" or lacking is None):
                soak.run(name, rounds, kind)
    if lacking is not None:
        print(f"no cuts of the network: {lacking}")
    print(f"{'nothing is wrong' if soak.ok else 'SOMETHING IS WRONG'} (seed {seed})")
    raise typer.Exit(0 if soak.ok else 1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {what}" for what, count in sorted(counts.items()))


def _spread(seconds: list[float]) -> str:
    p50, p99 = _at(seconds, 0.5), _at(seconds, 0.99)
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {seconds[-1]:.2f} s"


def _at(ascending: list[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


if __name__ == "__main__":
    end_on_sigterm()
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
