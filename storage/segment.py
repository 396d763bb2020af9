"""Segments as files: their names, writing one, reading one.

A segment is made in this order, so that a file under its final name always has a whole, durable header::

    create "….tmp" → allocate → fill with zeros → write header → fdatasync → rename → fsync directory

Zeros are written, not only reserved: a sync into space that was merely reserved also has to commit the
file system's note that it is now in use, and costs half as much again (measured on ext4: 154 against
105 µs).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from storage.directory import Directory, File
from storage.errors import CorruptLogError
from storage.frame import (
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    Frame,
    MalformedError,
    SegmentHeader,
    decode_frame,
    decode_segment_header,
    encode_segment_header,
    frame_length,
    seal_frame,
    segment_header_crc,
)

TEMPORARY_SUFFIX = ".tmp"
# One piece of zeros is one write and one sync: small enough that a commit beside it waits little.
FILL_BYTES = 512 * 1024
_ZEROS = bytes(FILL_BYTES)
# Frames are read through a window, so that a segment of any size costs the same memory.
_WINDOW_BYTES = 2 * FRAME_BYTES_MAX
_NAME = re.compile(r"(\d{20})-(\d{10})\.log")


def segment_name(base_lsn: int, epoch: int) -> str:
    """Return the file name; names sort by base LSN."""
    return f"{base_lsn:020d}-{epoch:010d}.log"


def base_lsn_of(name: str) -> int:
    """Return the base LSN that a segment's name says."""
    return int(name.partition("-")[0])


def is_segment_name(name: str) -> bool:
    """Return whether `name` is one that `segment_name` makes."""
    return _NAME.fullmatch(name) is not None


def highest_epoch(directory: Directory) -> int:
    """Return the latest epoch that wrote a segment here; 0 if there is none.

    A new epoch must be above it, whatever the archive says: one that was restored to an older state
    counts from there, and two incarnations under one epoch could not be told apart.
    """
    found = (_NAME.fullmatch(name) for name in directory.names())
    return max((int(match[2]) for match in found if match is not None), default=0)


@dataclass(frozen=True, slots=True)
class Spare:
    """A preallocated file without a header, not yet part of the log."""

    file: File
    name: str
    size: int

    @property
    def room_bytes(self) -> int:
        """Return how long a frame is sure to fit, with a trailing frame behind it."""
        return self.size - SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES


def reserve_spare(directory: Directory, name: str, size: int) -> Spare:
    """Create a file with `size` bytes reserved on disk.

    Raises:
        OSError: ENOSPC or EDQUOT if there is no room; nothing is left behind.
    """
    file = directory.create(name)
    try:
        file.allocate(size)
    except OSError:
        file.close()
        directory.unlink(name)
        raise
    return Spare(file, name, size)


def fill_spare(spare: Spare, offset: int) -> int:
    """Write one durable piece of zeros at `offset`; return where the next one goes."""
    piece = _ZEROS[: min(FILL_BYTES, spare.size - offset)]
    spare.file.write_at(offset, piece)
    spare.file.sync()
    return offset + len(piece)


class SegmentWriter:
    """The end of the log: the one segment that grows. Blocking; one call at a time."""

    __slots__ = ("_file", "_salt", "chain_crc", "header", "name", "offset", "size")

    def __init__(self, spare: Spare, header: SegmentHeader) -> None:
        block = encode_segment_header(header)
        spare.file.write_at(0, block)
        self._file = spare.file
        self._salt = header.salt
        self.name = spare.name
        self.header = header
        self.size = spare.size
        self.offset = SEGMENT_HEADER_BYTES
        self.chain_crc = segment_header_crc(block)  # of the last frame, for whatever follows it

    @property
    def room_bytes(self) -> int:
        """Return how long the next frame may be; a trailing frame still fits behind it."""
        return self.size - self.offset - FRAME_HEADER_BYTES

    def append(self, frame: bytearray, *, count: int, first_lsn: int, durable_upto: int) -> None:
        """Write one frame; durable only after `sync`."""
        crc = seal_frame(
            frame,
            salt=self._salt,
            offset=self.offset,
            count=count,
            first_lsn=first_lsn,
            durable_upto=durable_upto,
            prev_crc=self.chain_crc,
        )
        self._file.write_at(self.offset, frame)
        self.chain_crc = crc
        self.offset += len(frame)

    def sync(self) -> None:
        """Make every frame durable."""
        self._file.sync()

    def publish(self, directory: Directory) -> None:
        """Make what was written durable, then part of the log, under its final name."""
        self._file.sync()
        name = segment_name(self.header.base_lsn, self.header.epoch)
        directory.rename(self.name, name)
        directory.sync()
        self.name = name

    def close(self) -> None:
        """Close the file; a delayed error of the kernel may surface here."""
        self._file.close()


class SegmentReader:
    """Reads the frames of one segment in order; says what stands where they end. Blocking.

    Raises:
        CorruptLogError: the header is not whole, or is another segment's.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self.name = name
        self.path = f"{directory.path}/{name}"
        self._file = directory.open(name)
        try:
            block = self._file.read_at(0, SEGMENT_HEADER_BYTES)
            self.header = self._check_header(block)
            self.size = self._file.size()
        except BaseException:
            self._file.close()
            raise
        self.chain_crc = segment_header_crc(block)
        self.next_lsn = self.header.base_lsn
        self.offset = SEGMENT_HEADER_BYTES
        self._salt = self.header.salt
        self._window = b""
        self._window_at = SEGMENT_HEADER_BYTES

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "SegmentReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def frames(self) -> Iterator[Frame]:
        """Yield valid frames until one is not; `offset` is then where it stands.

        Raises:
            CorruptLogError: a frame is whole and in its place, but does not continue the one before it.
        """
        while (frame := self._frame_at(self.offset)) is not None:
            lsn = self.next_lsn
            if (frame.prev_crc, frame.first_lsn) != (self.chain_crc, lsn):
                raise CorruptLogError(
                    self.path, self.offset, f"the frame does not continue the log at LSN {lsn}"
                )
            if frame.durable_upto > lsn:
                raise CorruptLogError(
                    self.path, self.offset, f"LSN {frame.durable_upto} was synced, {lsn} comes next"
                )
            yield frame
            self.chain_crc = frame.crc
            self.next_lsn = frame.lsn_end
            self.offset += frame.size

    def skip_damage(self) -> bool:
        """Go on at the next valid frame, if there is one: for tools that show what can still be read."""
        found = self.next_valid_frame(self.size)
        if found is None:
            return False
        frame = self._frame_at(found)
        assert frame is not None
        self.offset, self.chain_crc, self.next_lsn = found, frame.prev_crc, frame.first_lsn
        return True

    def damage_end(self) -> int:
        """Return the end of the last byte after `offset` that is not zero; `offset` if there is none."""
        end = self.size
        while end > self.offset:
            start = max(self.offset, end - FILL_BYTES)
            piece = self._file.read_at(start, end - start)
            if piece != _ZEROS[: len(piece)]:
                return start + len(piece.rstrip(b"\0"))
            end = start
        return self.offset

    def next_valid_frame(self, end: int) -> int | None:
        """Return the offset of the first valid frame after the one that is not valid, below `end`."""
        at = self.offset + 1
        while at < end:
            piece = self._file.read_at(at, FILL_BYTES)
            found = piece.find(FRAME_MAGIC)
            while found >= 0:
                if self._frame_at(at + found) is not None:
                    return at + found
                found = piece.find(FRAME_MAGIC, found + 1)
            # A magic may lie across two pieces.
            at += max(len(piece) - len(FRAME_MAGIC) + 1, 1)
        return None

    def read(self, offset: int, length: int) -> bytes:
        """Return raw bytes."""
        return self._file.read_at(offset, length)

    def _check_header(self, block: bytes) -> SegmentHeader:
        try:
            header = decode_segment_header(block)
        except MalformedError as error:
            raise CorruptLogError(self.path, 0, error.reason) from error
        if segment_name(header.base_lsn, header.epoch) != self.name:
            raise CorruptLogError(self.path, 0, "its header is another segment's")
        return header

    def _frame_at(self, offset: int) -> Frame | None:
        index = self._reach(offset, FRAME_HEADER_BYTES)
        size = frame_length(self._window, index)
        if size is None:
            return None
        index = self._reach(offset, size)
        return decode_frame(self._window, index, salt=self._salt, offset=offset)

    def _reach(self, offset: int, length: int) -> int:
        """Bring `length` bytes at `offset` into the window, as far as there are any; return their index."""
        index = offset - self._window_at
        if index < 0 or index + length > len(self._window):
            self._window = self._file.read_at(offset, max(length, _WINDOW_BYTES))
            self._window_at = offset
            index = 0
        return index
