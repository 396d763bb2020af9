"""Which slots a node may own, as it remembers itself: an archive that says more was restored to an older state.

A slot that moved since the backup has been written to by its later owner. Were the earlier one to serve it again, it would
give the same seqs out a second time. So a node notes a slot before it claims it, and serves none that is the
archive's word alone. The note is one file in the data directory, replaced as a whole.
"""

import os
from collections.abc import Set
from pathlib import Path

import msgspec

from storage import CorruptLogError

NAME = "slots"


class SlotsFile:
    """The note of one node. Every method blocks."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / NAME

    def read(self) -> frozenset[int] | None:
        """Return the slots; None where nothing was noted yet.

        Raises:
            CorruptLogError: it holds something else.
        """
        try:
            return frozenset(msgspec.json.decode(self.path.read_bytes(), type=list[int]))
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise CorruptLogError(str(self.path), 0, f"it is no list of slots: {error}") from error

    def write(self, slots: Set[int]) -> None:
        """Note these in place of what was noted; durable on return."""
        write_file(self.path, msgspec.json.encode(sorted(slots)))


def write_file(path: Path, content: bytes) -> None:
    """Replace a file as a whole; durable on return."""
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
