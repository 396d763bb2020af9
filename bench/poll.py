"""One loop for all connections of a load generator."""

import select
from collections.abc import Callable


class Poll:
    """What is called when a socket has something to read."""

    __slots__ = ("_epoll", "_readers")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}

    def add(self, fileno: int, read: Callable[[], None]) -> None:
        """Call `read` whenever this socket is readable; it reads once."""
        self._readers[fileno] = read
        self._epoll.register(fileno, select.EPOLLIN)

    def remove(self, fileno: int) -> None:
        """Forget a socket, before it is closed."""
        del self._readers[fileno]
        self._epoll.unregister(fileno)

    def turn(self, seconds: float) -> None:
        """Wait at most so long, and serve each socket that has something to read, once."""
        for fileno, _ in self._epoll.poll(max(0.0, seconds)):
            # Another one may have hung up on it meanwhile.
            if (read := self._readers.get(fileno)) is not None:
                read()
