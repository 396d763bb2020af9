"""One life of a node after another, over a disk and an archive that fail when they are told to."""

import functools
from collections.abc import Sequence
from typing import Any

import trio

from runtime import Node, NodeOptions, open_node
from storage import Archive, ArchiveUnavailableError, LogPoisonedError, Record
from tests.fakes.directory import CrashingDirectory, PowerCutError


class FailingArchive(Archive):
    """SQLite that is away, or commits and then does not say so, when it is told to."""

    is_away = False
    replies_to_lose = 0

    def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        self._check_there()
        super().flush(node_id, epoch, cursor, records)
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            raise ArchiveUnavailableError("told to lose the reply")

    def begin_epoch(self, *args: Any, **more: Any) -> Any:
        self._check_there()
        return super().begin_epoch(*args, **more)

    def read_sessions(self, *args: Any) -> Any:
        self._check_there()
        return super().read_sessions(*args)

    def find_sessions(self, *args: Any) -> Any:
        self._check_there()
        return super().find_sessions(*args)

    def read_messages(self, *args: Any, **kwargs: Any) -> Any:
        self._check_there()
        return super().read_messages(*args, **kwargs)

    def _check_there(self) -> None:
        if self.is_away:
            raise ArchiveUnavailableError("told to be away")


class Life:
    """One life of the node, until it is stopped, dies of its disk, or is crashed."""

    def __init__(
        self, options: NodeOptions, archive: Archive, directory: CrashingDirectory
    ) -> None:
        self.node: Node
        self.ended = trio.Event()
        self._stopped = trio.Event()
        self._scope = trio.CancelScope()
        self._open = functools.partial(open_node, options, archive, directory)
        self._directory = directory
        self._started = False
        self._error: Exception | None = None

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                async with self._open() as self.node:
                    self._started = True
                    task_status.started()
                    await self._stopped.wait()
                    await self.node.shutdown(0.1)
        except Exception as error:
            if not self._started:
                raise
            self._error = error
        finally:
            self.ended.set()

    async def stop(self) -> None:
        self._stopped.set()
        await self._end()

    async def crash(self) -> None:
        """The power goes now; or `kill -9`, for a disk that does not fail."""
        self._directory.faults.power_cut_at = 0
        self._scope.cancel()
        await self._end()

    async def _end(self) -> None:
        """Wait for the end; nothing but a disk that failed may have been its reason."""
        await self.ended.wait()
        if self._error is not None:
            failed = self._directory.dead or self._directory.faults.errors
            group = BaseExceptionGroup("ended", [self._error])
            _, other = group.split((PowerCutError, LogPoisonedError)) if failed else (None, group)
            if other is not None:
                raise other
