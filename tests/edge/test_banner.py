import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from edge.banner import banner, examples
from edge.config import load_config
from edge.values import Address
from tests.edge.server_process import server_process


def test_the_banner_says_where_and_what_to_paste() -> None:
    config = load_config({"data": "d", "archive": "postgresql://u:hunter2@h/db"}, environment={})

    text = banner(config, Address("0.0.0.0", 4000), development=False, seconds=0.5)

    assert "listening  http://127.0.0.1:4000  (keys required)" in text
    assert "websocket  ws://127.0.0.1:4000/v1/ws\n" in text
    assert "data       ./d, archive postgresql://u:…@h/db, local" in text
    assert text.count("curl") == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_lines_to_paste_work(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server:
        server.wait_ready()
        create, write, follow = examples(server.url, development=True)

        def run(line: str) -> str:
            done = subprocess.run(
                ["sh", "-c", line], capture_output=True, text=True, timeout=20, check=False
            )
            return done.stdout

        assert json.loads(run(create))["id"] == "demo"
        assert json.loads(run(write))["seq"] == 1
        stopper = threading.Timer(1.0, server.signal, [signal.SIGTERM])
        stopper.start()
        assert '"text":"hello"' in run(follow)
        assert server.wait() == 0
