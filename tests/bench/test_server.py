from pathlib import Path

import trio

from bench.processes import family
from bench.server import ServerOptions, open_server, sqlite_url
from tests.edge.server_process import wait_until


async def test_a_server_is_not_left_running_by_who_waits_for_its_end_no_longer(
    tmp_path: Path,
) -> None:
    options = ServerOptions(tmp_path, sqlite_url(tmp_path))
    with trio.CancelScope() as scope:
        async with open_server(options) as server:
            await server.start()
            pid = server.pid
            # Cancelled at its first checkpoint, when it has told the server to stop.
            scope.cancel()
            await server.stop()
    assert scope.cancelled_caught
    assert not Path(f"/proc/{pid}").exists()


async def test_a_cluster_that_is_abandoned_leaves_no_process_behind(tmp_path: Path) -> None:
    settings = {"owners": "1", "edges": "1"}
    options = ServerOptions(tmp_path, sqlite_url(tmp_path), settings, command="up")
    async with open_server(options) as server:
        await server.start()
        started = family(server.pid)
        # The supervisor, an owner with its flush process, an edge.
        assert len(started) >= 4
    await trio.to_thread.run_sync(
        wait_until, lambda: not any(Path(f"/proc/{pid}").exists() for pid in started)
    )
