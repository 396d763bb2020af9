from pathlib import Path

import trio

from bench.server import ServerOptions, open_server, sqlite_url


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
