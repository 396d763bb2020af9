"""Runs blocking functions where tests can see them: on the loop, in a fixed order."""

from collections.abc import Callable
from typing import Any

import trio

HELD_SECONDS_MAX = 2


async def run_inline(function: Callable[..., Any], *args: Any) -> Any:
    """Run the function here and now, after one checkpoint."""
    await trio.lowlevel.checkpoint()
    return function(*args)


class HeldRunSync:
    """Runs blocking functions inline, but while `held` only when a test says `release`."""

    def __init__(self) -> None:
        self.held = False
        self.waiting = 0
        self._released = trio.lowlevel.ParkingLot()

    async def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.held:
            self.waiting += 1
            # Like a thread, it cannot be cancelled; but a test that fails while it holds must end.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HELD_SECONDS_MAX):
                await self._released.park()
            self.waiting -= 1
        return function(*args)

    def release(self) -> None:
        """Let what waits go on."""
        self._released.unpark_all()
