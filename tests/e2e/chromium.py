"""Headless Chromium with one page, served from here; the page reports what it saw."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # root cannot have one
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    # Not even a name is looked up.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
REPORT_SECONDS_MAX = 45.0


def find_chromium() -> str:
    """Return the browser; without one skip, but fail where everything must be tested."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    reason = "no Chromium on this machine: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


Step = Callable[[], None]


class Page:
    """One page at `url`: GET gives the page, POST /step/NAME runs a step, POST /report ends the test."""

    def __init__(self, script: str, steps: dict[str, Step]) -> None:
        self._reports: Queue[Any] = Queue()
        document = (
            f"<!doctype html><meta charset=utf-8><title>test</title><script>{script}</script>"
        )
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(document.encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/report":
                    page._reports.put(json.loads(body))
                else:
                    steps[self.path.removeprefix("/step/")]()
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def report(self) -> Any:
        """Return what the page reported."""
        try:
            return self._reports.get(timeout=REPORT_SECONDS_MAX)
        except Empty:
            pytest.fail("the page did not report")


@contextmanager
def open_page(script: str, steps: dict[str, Step] | None = None) -> Iterator[Page]:
    """Serve a page on loopback until the block ends."""
    page = Page(script, steps or {})
    thread = threading.Thread(target=page.server.serve_forever)
    thread.start()
    try:
        yield page
    finally:
        page.server.shutdown()
        page.server.server_close()
        thread.join()


@contextmanager
def browsing(url: str, directory: Path) -> Iterator[None]:
    """Show a page in a browser of its own until the block ends; `directory` holds its profile."""
    command = [find_chromium(), *FLAGS, f"--user-data-dir={directory}/profile", url]
    with (directory / "browser.log").open("wb") as log:
        browser = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"HOME": str(directory)},
            start_new_session=True,  # so that its own children end with it
        )
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
