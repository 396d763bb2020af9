from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from runtime import Node, NodeOptions, open_node
from storage import LogOptions, open_archive

OpenNode = Callable[..., AbstractAsyncContextManager[Node]]

SMALL_LOG = LogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 20)


@pytest.fixture
def open_test_node(tmp_path: Path) -> OpenNode:
    """Open a node on one directory with SQLite: real files, real fsync, a real database."""

    @asynccontextmanager
    async def open_it(**changes: object) -> AsyncIterator[Node]:
        archive = open_archive(f"sqlite:///{tmp_path}/archive.db")
        try:
            options = NodeOptions(data_dir=tmp_path, log=SMALL_LOG, **changes)  # type: ignore[arg-type]
            async with open_node(options, archive) as node:
                yield node
        finally:
            archive.close()

    return open_it
