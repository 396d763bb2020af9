"""The flush process: writes what the server sends it into the archive, and says what came of it.

`python -m storage.flushworker DESCRIPTOR` is started by `storage.flushprocess`, with one end of a socket.
It ends when the other end does, at once, even in the middle of a flush: whether that one counts is decided
where it always is, by the epoch and the cursor in its transaction. No signal but SIGKILL ends it before the
server: whoever stops a process group, or a whole service, would otherwise cut off the server's last flush.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import BinaryIO

from storage import failpoints, flushlink
from storage.archive import Archive
from storage.archiveopening import open_archive
from storage.errors import StorageError
from storage.flushlink import Flush, Flushed, OpenArchive, Refused

NICENESS = 10
"""Where processors are short, acknowledgements come before the archive: a fifth more of them on two cores."""


class Worker:
    """Does one flush after another, on an archive that is opened when it is there."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._stream: BinaryIO = link.makefile("rb")
        self._url = ""
        self._archive: Archive | None = None
        self._named = False

    def run(self) -> None:
        """Work until the server has ended.

        Raises:
            Exception: a mistake in the program, which ends this process.
        """
        with suppress(EOFError, ConnectionError):
            while True:
                match flushlink.decode_request(flushlink.receive(self._stream)):
                    case OpenArchive(url):
                        self._url = url
                        self._warm_up()
                    case Flush() as request:
                        self._link.sendall(flushlink.encode(self._flush(request)))

    def _warm_up(self) -> None:
        """Open the archive before it is needed; where that fails, the first flush says why."""
        try:
            self._open()
        except StorageError:
            return
        # What was made until now lives as long as the process.
        gc.freeze()

    def _open(self) -> Archive:
        if self._archive is None:
            self._archive = open_archive(self._url)
        return self._archive

    def _flush(self, request: Flush) -> Flushed | Refused:
        failpoints.failpoint("flush.received")
        try:
            archive = self._open()
            if not self._named:
                archive.name_connections(request.node_id)
                self._named = True
            archive.flush(request.node_id, request.epoch, request.cursor, request.records)
        except StorageError as error:
            return flushlink.refuse(error)
        return Flushed()


def end_with_server(link: socket.socket) -> None:
    """Wait for the server's end, then end this process, whatever it is doing; in a thread of its own.

    A database that hangs would keep it for as long as it likes, and with it whatever waits for the end of
    the server's output.
    """
    server = select.poll()
    server.register(link, select.POLLRDHUP)
    server.poll()
    os._exit(0)


def main() -> None:
    """Serve the socket whose descriptor is the first argument; a second one is a failpoint to die at."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    if len(sys.argv) > 2:
        failpoints.arm_failpoint(sys.argv[2], takes_parent=True)
    link = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=end_with_server, args=(link,), daemon=True).start()
    Worker(link).run()


if __name__ == "__main__":
    main()
