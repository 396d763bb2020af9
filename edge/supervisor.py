"""A cluster on one machine: its processes started, restarted when they end, and stopped together.

Every line that a process writes is passed on with the process's name before it. One that ends is started again,
after a pause that doubles while it keeps ending soon. The first SIGINT or SIGTERM stops the edges, then the owners,
each with SIGINT; whatever is left after that has the supervisor's own deadline, and is killed.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

RESTART_SECONDS = (0.5, 15.0)
"""Before a process is started again: at first, and at most."""

STEADY_SECONDS = 30.0
"""A process that lived for so long has not failed to start."""

STOP_SECONDS = 60.0
"""After that a process that was told to stop is killed: longer than a server's own drain takes."""

LINE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One process: its name, and the arguments of `ringlog` that it runs with."""

    name: str
    arguments: Sequence[str]


class Supervisor:
    """Runs the parts of a cluster; `say` is handed each line."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say

    async def run(self, owners: Sequence[Part], edges: Sequence[Part]) -> None:
        """Run them all until a signal comes."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as owning:
                for part in owners:
                    owning.start_soon(self._keep, part)
                async with trio.open_nursery() as serving:
                    for part in edges:
                        serving.start_soon(self._keep, part)
                    await anext(signals)
                    self._say("cluster", "stopping")
                    serving.cancel_scope.cancel()
                owning.cancel_scope.cancel()

    async def _keep(self, part: Part) -> None:
        """Run a part again and again, until this is cancelled."""
        pause, longest = RESTART_SECONDS
        while True:
            began = trio.current_time()
            code = await self._run_once(part)
            if trio.current_time() - began > STEADY_SECONDS:
                pause = RESTART_SECONDS[0]
            self._say(part.name, f"ended with {code}; starting again in {pause:g} s")
            await trio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _run_once(self, part: Part) -> int:
        """Start a part, and wait for its end; when this is cancelled, see to that end."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "edge", *part.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the supervisor, who stops them in their order.
            process_group=0,
        )
        assert process.stdout is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, part.name, process.stdout)
                await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                await self._end(part, process)
        return process.returncode or 0

    async def _end(self, part: Part, process: trio.Process) -> None:
        assert process.stdout is not None
        if process.returncode is None:
            # Not SIGTERM: an owner would hand its sessions to another that is to end as well.
            process.send_signal(signal.SIGINT)
            with trio.move_on_after(STOP_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, part.name, process.stdout)
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        await process.stdout.aclose()

    async def _pass_on(self, name: str, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._say(name, line.decode(errors="replace"))
            if len(rest) > LINE_BYTES_MAX:
                self._say(name, rest.decode(errors="replace"))
                rest = b""
        if rest:
            self._say(name, rest.decode(errors="replace"))


def run_cluster(
    owners: Sequence[Part], edges: Sequence[Part], say: Callable[[str, str], None]
) -> None:
    """Run a cluster until SIGINT or SIGTERM."""
    trio.run(partial(Supervisor(say).run, owners, edges))
