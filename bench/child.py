"""A program of the bench that runs as a child process and is spoken with in lines.

What measures must not share an interpreter with what it measures, so the load generator and the bare
server are processes of their own. Both are told things on stdin and answer on stdout, one line each;
what they print for people goes to our own stderr. A child whose stdin ends is told to end.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

END_SECONDS_MAX = 10.0
"""From the end of its stdin to the end of a child that has nothing left to do."""

RECEIVE_BYTES = 64 * 1024


class ChildError(Exception):
    """A child gave up; it said why on stderr."""


class Child:
    """One child process."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.pid = process.pid
        self._name = name
        self._process = process
        self._received = b""

    async def send_line(self, line: bytes = b"") -> None:
        """Tell it something.

        Raises:
            ChildError: It ended.
        """
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(line + b"\n")
        except trio.BrokenResourceError:
            raise await self._error() from None

    async def receive_line(self) -> bytes:
        """Return what it says next; nothing is lost when this is cancelled.

        Raises:
            ChildError: It ended.
        """
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            received = await self._process.stdout.receive_some(RECEIVE_BYTES)
            if not received:
                raise await self._error()
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    async def end(self) -> None:
        """Let it end by itself.

        Raises:
            ChildError: It did not, or exited with something else than 0.
        """
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.move_on_after(END_SECONDS_MAX):
            await self._process.wait()
        if self._process.returncode != 0:
            raise await self._error()

    async def abandon(self) -> None:
        """Leave no process behind, whatever state it is in."""
        self._process.kill()
        await self._process.wait()

    async def _error(self) -> ChildError:
        with trio.move_on_after(END_SECONDS_MAX):
            code = await self._process.wait()
            return ChildError(f"{self._name} exited with {code}")
        return ChildError(f"{self._name} did not end by itself")


@asynccontextmanager
async def open_child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Start a module of the bench; nothing of it is left running afterwards."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    child = Child(module, process)
    try:
        yield child
    finally:
        with trio.CancelScope(shield=True):
            await child.abandon()
