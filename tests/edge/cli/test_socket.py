import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import ROOT, server_process, wait_until


def test_follow_resumes_across_a_crash_and_shows_everything_once(
    tmp_path: Path, ringlog: Ringlog
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    data, url = tmp_path / "data", f"--url=http://{address}"
    shown: list[str] = []
    with server_process(data, f"--listen={address}") as first:
        first.wait_ready()
        ringlog("session", "send", "s", "before", "--user", "a", "--create", url)
        follower = subprocess.Popen(
            [sys.executable, "-m", "edge", "session", "tail", "s", "--follow", url],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        assert follower.stdout is not None
        reader = threading.Thread(target=lambda: shown.extend(follower.stdout or ()), daemon=True)
        reader.start()
        wait_until(lambda: len(shown) == 1)
        first.kill()
    with server_process(data, f"--listen={address}") as second:
        second.wait_ready()
        ringlog("session", "send", "s", "after", "--user", "a", url)
        wait_until(lambda: len(shown) == 2)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        reader.join(10)
        follower.stdout.close()

    assert [line.split(" ", 2)[2] for line in shown] == ["a: before\n", "a: after\n"]
