"""``python -m tests.crash``: hundreds of kills on each archive, one verdict."""

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
from bench.server import end_on_sigterm, sqlite_url
from tests.crash.rounds import CrashOptions, CrashResult, run_crash


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Kills, on each archive.")] = 300,
    archive: Annotated[str, typer.Option(help="sqlite, postgres or both.")] = "both",
    seed: Annotated[int | None, typer.Option(help="Repeat a run; random by default.")] = None,
    directory: Annotated[
        Path, typer.Option(help="Where fresh data directories are made.", resolve_path=True)
    ] = Path(".ringlog"),
) -> None:
    """Kill a real server again and again under real clients; exit with 1 if anything is wrong."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    directory.mkdir(parents=True, exist_ok=True)
    kinds = ("sqlite", "postgres") if archive == "both" else (archive,)
    print(f"seed {seed}", file=sys.stderr)
    broken = False
    for kind in kinds:
        start = time.monotonic()
        result = _run(kind, rounds, seed, directory)
        print(f"{kind}: {_summary(result)} in {time.monotonic() - start:.0f} s (seed {seed})")
        for example in result.findings.examples:
            print(f"  {example}")
        broken |= not result.ok
    raise typer.Exit(1 if broken else 0)


def _run(kind: str, rounds: int, seed: int, directory: Path) -> CrashResult:
    with tempfile.TemporaryDirectory(prefix=f"crash-{kind}-", dir=directory) as name:
        if kind == "sqlite":
            options = CrashOptions(rounds, seed, Path(name), sqlite_url(Path(name)))
            return trio.run(run_crash, options, _say)
        with open_postgres() as postgres:
            url = postgres.url(postgres.create_database())
            options = CrashOptions(rounds, seed, Path(name), url)
            return trio.run(run_crash, options, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _summary(result: CrashResult) -> str:
    verdict = ", ".join(f"{result.findings.counts[kind]} {kind}" for kind in Kind)
    return (
        f"{result.kills} kills ({result.kills_while_starting} while starting),"
        f" {result.reconnects:,} reconnects, {result.sessions:,} sessions,"
        f" {result.acknowledged:,} acknowledged, {result.replayed:,} replayed,"
        f" {result.archived:,} archived: {verdict}"
    )


if __name__ == "__main__":
    end_on_sigterm()
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
