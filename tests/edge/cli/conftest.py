"""Commands run in the test's own process, against a real server in a process of its own."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.cli import main
from tests.edge.server_process import ServerProcess, server_process


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.out)
        return value


Ringlog = Callable[..., Result]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only talk to it; each uses a session of its own."""
    with server_process(tmp_path_factory.mktemp("cli") / "data") as process:
        yield process.wait_ready()


@pytest.fixture
def ringlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Ringlog:
    """Run a command in this process, as the console script would."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["ringlog", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: object = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Result(int(str(code or 0)), captured.out.decode(), captured.err.decode())

    return run


@pytest.fixture
def talk(ringlog: Ringlog, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Ringlog:
    """Run a command that finds the server by RINGLOG_URL."""
    monkeypatch.setenv("RINGLOG_URL", server.url)
    return ringlog


@contextmanager
def stranger() -> Iterator[None]:
    """Be a user who owns nothing here; only the superuser can be one, others are refused by mode 0."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
