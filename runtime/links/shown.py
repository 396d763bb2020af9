"""The answer that is being given in another node's session, as an edge shows it to its own readers.

The owner shows it to the edge once, from its start, on each channel; here it is kept until it ends, so that whoever
joins on this edge gets it from the start too. It may end while no channel is open: the next one tells what is answered
then, and what became of another is asked of the archive.
"""

from typing import TYPE_CHECKING

import trio

from runtime.answer import ENDED, Answer
from runtime.links.messages import Shown
from runtime.tail import show_live
from storage import ArchiveUnavailableError

if TYPE_CHECKING:
    from runtime.links.remote import RemoteSession

LOOK_SECONDS = 0.3
"""Between two looks at what became of an answer: what ended has reached the archive after one flush."""


class ShownAnswer:
    """One session's answer, as far as its owner has shown it."""

    __slots__ = ("_session", "answer")

    def __init__(self, session: "RemoteSession") -> None:
        self._session = session
        self.answer: Answer | None = None

    def take(self, shown: Shown) -> None:
        """Take a frame that came on the channel; one that came on an earlier channel is not taken twice."""
        answer = self.answer
        known = answer is not None and answer.end is None and answer.dispatch == shown.dispatch
        if shown.place == 0:
            if known and answer is not None and answer.frames[0] == shown.frame:
                return
            self.answer = Answer(shown.dispatch, shown.frame)
        elif answer is None or not known:
            return
        elif shown.place == ENDED:
            answer.close(shown.frame)
        elif shown.place == len(answer.frames):
            answer.add(shown.frame)
        else:
            return
        show_live(list(self._session.live))

    def opened(self, dispatch: str) -> None:
        """A channel is open, and this dispatch is being answered, or none: find out what became of another."""
        answer = self.answer
        if answer is not None and answer.end is None and answer.dispatch != dispatch:
            self._session.start_soon(lambda: self._find_end(answer))

    async def _find_end(self, answer: Answer) -> None:
        session = self._session
        while answer is self.answer and answer.end is None and not session.closed:
            try:
                end = await session.around.find_end(session.workspace, answer.dispatch)
            except ArchiveUnavailableError:
                end = None
            if end is None:
                await trio.sleep(LOOK_SECONDS)
            elif answer is self.answer and answer.end is None:
                answer.close(end)
                show_live(list(session.live))
