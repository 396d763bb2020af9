"""A trio loop in a thread of its own, which a synchronous test goes through step by step."""

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


class LoopThread:
    """Runs one call after another on its loop; what they start goes on between them."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), daemon=True)
        self._thread.start()
        self._started.wait()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        async with trio.open_nursery() as self.nursery:
            self._started.set()
            await self._end.wait()
            self.nursery.cancel_scope.cancel()

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an async function and return what it returns."""
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def close(self) -> None:
        """End the loop and everything on it."""
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join()
