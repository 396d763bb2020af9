"""What readers are shown of an answer while it is given: frames, from the attempt's start to its end. Pure.

An `Answer` is one attempt of one dispatch. Its frames are in memory until it ends, so whoever comes late, or reads
slowly, gets them from the first one on; then its messages are in the log, and all that is left is the frame that
says so, for those who were shown any of it.
"""

ENDED = -1
"""The place of the frame that ends an answer; the others count from 0."""


class Answer:
    """One attempt's frames that are durable. The first one tells of the attempt, and so identifies it."""

    __slots__ = ("dispatch", "end", "frames")

    def __init__(self, dispatch: str, first: bytes) -> None:
        self.dispatch = dispatch
        self.frames = [first]
        self.end: bytes | None = None

    def add(self, frame: bytes) -> None:
        """Take the next frame."""
        assert self.end is None
        self.frames.append(frame)

    def close(self, frame: bytes) -> None:
        """Nothing more comes of it."""
        self.end = frame
        self.frames.clear()


class Showing:
    """How much of an answer one reader was shown."""

    __slots__ = ("answer", "place")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.place = 0

    def next_frame(self, answer: Answer | None) -> tuple[int, bytes] | None:
        """Return the next frame that the reader lacks, and its place; None if it has seen all.

        Who was shown nothing of an answer that has ended is not told of its end.
        """
        if answer is not self.answer and answer is not None and answer.end is None:
            self.answer, self.place = answer, 0
        shown = self.answer
        if shown is None or answer is not shown or self.place == ENDED:
            return None
        if shown.end is not None:
            return ENDED, shown.end
        if self.place < len(shown.frames):
            return self.place, shown.frames[self.place]
        return None

    def shown(self, place: int) -> None:
        """Note that the reader has this frame."""
        self.place = ENDED if place == ENDED else place + 1


_FRAMES = (b'{"type":"chunk",', b'{"type":"dispatch",')


def is_frame(body: bytes) -> bool:
    """Tell a frame of an answer from a message or a gap, where both come in one stream."""
    return body.startswith(_FRAMES)


def frame_type(frame: bytes) -> bytes:
    """Return what a frame is: `chunk` or `dispatch`."""
    return frame.split(b'"', 4)[3]
