"""A server that is disturbed while clients write to it and read from it; they judge it afterwards."""

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import trio

from bench.processes import family
from bench.server import Server
from tests.crash.rounds import CrashResult, Disturb, Load, moderate, run_crash

WAIT_SECONDS_MAX = 20.0

SESSION = "crash-1-shared-0"
"""One that several clients write to, and one follows."""


async def run_under_load(
    directory: Path,
    archive: str,
    disturb: Disturb,
    *,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> CrashResult:
    """Run clients against a server while `disturb` does its worst; nothing may be wrong."""
    options = moderate(directory, archive)
    options = replace(options, settings=settings or {}, environment=environment or {})
    result = await run_crash(options, disturb=disturb)
    assert result.findings.ok, result.findings.examples
    assert 100 < result.acknowledged <= result.replayed == result.archived
    return result


async def until(condition: Callable[[], bool]) -> float:
    """Wait for what clients see happen; return how many seconds that took."""
    began = trio.current_time()
    with trio.fail_after(WAIT_SECONDS_MAX):
        while not condition():
            await trio.sleep(0.01)
    return trio.current_time() - began


async def more(load: Load, messages: int = 50) -> float:
    """Wait until so many more messages are acknowledged; return how long that took."""
    enough = load.acknowledged + messages
    return await until(lambda: load.acknowledged >= enough)


def flush_process(server: Server) -> int | None:
    """Return the process that flushes for this one, None while there is none."""
    return next(iter(family(server.pid)[1:]), None)


async def until_ended(pid: int) -> None:
    """Wait until there is no such process."""
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def readiness(server: Server) -> str:
    """Return what /readyz says."""

    def ask() -> str:
        url = server.url.replace("ws:", "http:").replace("/v1/ws", "/readyz")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                text: bytes = response.read()
        except urllib.error.HTTPError as refusal:
            text = refusal.read()
            refusal.close()
        return text.decode()

    return await trio.to_thread.run_sync(ask)


async def until_readiness(server: Server, word: str) -> None:
    """Wait until /readyz says this."""
    with trio.fail_after(WAIT_SECONDS_MAX):
        while word not in await readiness(server):
            await trio.sleep(0.05)
