r"""The bytes of a log: segment headers, batch frames, records. Pure.

A log is a row of segments. A segment is one 4 KiB header block, then batch frames without padding, then
the zeros it was preallocated with. One batch frame is one write and one sync::

    segment header, 4096 bytes, little endian
     0  magic      8   FF 52 49 4E 47 4C 4F 47  ("\xffRINGLOG")
     8  version    4   1
    12  reserved   4   0
    16  node id   16
    32  epoch      8   the owner's incarnation that wrote this segment
    40  base LSN   8   LSN of the first record; voids every record from here on in lower epochs
    48  sealed end 8   LSN end if the segment was complete when it got its name, else all ones
    56  prev CRC   4   CRC of the last frame (or header) of the segment before, in the same epoch; else 0
    60  zeros
    4092 CRC       4   CRC32C of the 4092 bytes before

    batch frame, 36 bytes and the payload
     0  magic      4   FF 52 4C 42  ("\xffRLB")
     4  CRC        4   CRC32C of everything after this field, salted
     8  length     4   bytes of payload
    12  count      4   records in the payload; 0 in a trailing frame
    16  first LSN  8   LSN of the first record
    24  durable    8   LSN end known to be synced when this frame was written (`durable_upto`)
    32  prev CRC   4   CRC of the frame before, or of the segment header
    36  payload        records, see `storage/record.py`

The salt is CRC32C(node id, epoch, base LSN, offset of the frame in its file), used as the CRC's initial
value. So a frame is valid if and only if it is whole and stands where its writer put it: a stale or
misdirected write fails like a flipped bit. 0xFF occurs in no UTF-8 text, so no client can put a frame's
magic into the log and make a scan believe, or try, it.

One write is in flight at a time and a write is at most `FRAME_BYTES_MAX` long. Hence a frame that follows
another proves that the other was synced, and damage longer than one frame is never a torn write.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from fastcrc.crc32 import iscsi as crc32c

from storage.record import RECORD_LENGTH_BYTES, StoredRecord

SEGMENT_HEADER_BYTES = 4096  # one page: a torn header cannot share a page with a frame
FRAME_HEADER_BYTES = 36
# Two limits of 2 MiB each, a batch plus the one record that overran it: far above the 512 KiB that a
# batch gathers and the largest message, far below what would make a scan of torn bytes expensive.
BATCH_BYTES_LIMIT = 2 * 1024 * 1024
RECORD_BYTES_MAX = 2 * 1024 * 1024
FRAME_BYTES_MAX = FRAME_HEADER_BYTES + BATCH_BYTES_LIMIT + RECORD_BYTES_MAX
FRAME_MAGIC = b"\xffRLB"

_SEGMENT_MAGIC = b"\xffRINGLOG"
_FORMAT_VERSION = 1
_OPEN = 2**64 - 1
_SEGMENT_HEADER = struct.Struct("<8sII16sQQQI")
_SEGMENT_CRC_AT = SEGMENT_HEADER_BYTES - 4
_FRAME_HEADER = struct.Struct("<4sIIIQQI")
_AFTER_CRC = struct.Struct("<IIQQI")
_IDENTITY = struct.Struct("<16sQQ")
_RECORD_HEAD = struct.Struct("<IBB")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

assert _FRAME_HEADER.size == FRAME_HEADER_BYTES
assert _AFTER_CRC.size == FRAME_HEADER_BYTES - 8

encode_length = _U32.pack


class MalformedError(Exception):
    """Bytes that no writer of this format produces; `reason` says which rule they break."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself; `sealed_end` is None while it may still grow."""

    node_id: bytes
    epoch: int
    base_lsn: int
    sealed_end: int | None
    prev_crc: int

    @property
    def salt(self) -> int:
        """Return the CRC of the segment's identity, from which every frame's salt is made."""
        return crc32c(_IDENTITY.pack(self.node_id, self.epoch, self.base_lsn))


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A valid batch frame, with its payload."""

    crc: int
    count: int
    first_lsn: int
    durable_upto: int
    prev_crc: int
    payload: bytes

    @property
    def size(self) -> int:
        """Return the bytes that the frame takes in its file."""
        return FRAME_HEADER_BYTES + len(self.payload)

    @property
    def lsn_end(self) -> int:
        """Return the LSN after the frame's last record."""
        return self.first_lsn + self.count


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the header block; its last four bytes are the CRC that starts the chain of frames."""
    block = bytearray(SEGMENT_HEADER_BYTES)
    sealed_end = _OPEN if header.sealed_end is None else header.sealed_end
    _SEGMENT_HEADER.pack_into(
        block,
        0,
        _SEGMENT_MAGIC,
        _FORMAT_VERSION,
        0,
        header.node_id,
        header.epoch,
        header.base_lsn,
        sealed_end,
        header.prev_crc,
    )
    _U32.pack_into(block, _SEGMENT_CRC_AT, crc32c(bytes(block[:_SEGMENT_CRC_AT])))
    return bytes(block)


def segment_header_crc(block: bytes) -> int:
    """Return the CRC that a header block carries."""
    return int(_U32.unpack_from(block, _SEGMENT_CRC_AT)[0])


def decode_segment_header(block: bytes) -> SegmentHeader:
    """Return the header in `block`.

    Raises:
        MalformedError: the block is damaged, cut short, or of another format.
    """
    if len(block) < SEGMENT_HEADER_BYTES:
        raise MalformedError("the segment header is cut short")
    if segment_header_crc(block) != crc32c(block[:_SEGMENT_CRC_AT]):
        raise MalformedError("the segment header's checksum is wrong")
    magic, version, _, node_id, epoch, base_lsn, sealed_end, prev_crc = _SEGMENT_HEADER.unpack_from(
        block
    )
    if magic != _SEGMENT_MAGIC:
        raise MalformedError("this is not a log segment")
    if version != _FORMAT_VERSION:
        raise MalformedError(f"format version {version}; this version reads {_FORMAT_VERSION}")
    return SegmentHeader(
        node_id, epoch, base_lsn, None if sealed_end == _OPEN else sealed_end, prev_crc
    )


def seal_frame(
    frame: bytearray,
    *,
    salt: int,
    offset: int,
    count: int,
    first_lsn: int,
    durable_upto: int,
    prev_crc: int,
) -> int:
    """Write the header into the room left at the frame's beginning; return the frame's CRC.

    The payload is gathered behind that room from the start, so that a batch is never copied.
    """
    length = len(frame) - FRAME_HEADER_BYTES
    _FRAME_HEADER.pack_into(
        frame, 0, FRAME_MAGIC, 0, length, count, first_lsn, durable_upto, prev_crc
    )
    with memoryview(frame) as view, view[8:] as covered:
        crc = crc32c(covered, crc32c(_U64.pack(offset), salt))
    _U32.pack_into(frame, 4, crc)
    return crc


def decode_frame(buffer: bytes, index: int, *, salt: int, offset: int) -> Frame | None:
    """Return the frame at `index` of `buffer`, which stands at `offset` of its file; None if not valid."""
    if buffer[index : index + 4] != FRAME_MAGIC or len(buffer) - index < FRAME_HEADER_BYTES:
        return None
    _, crc, length, count, first_lsn, durable_upto, prev_crc = _FRAME_HEADER.unpack_from(
        buffer, index
    )
    end = index + FRAME_HEADER_BYTES + length
    if end > len(buffer) or end - index > FRAME_BYTES_MAX:
        return None
    with memoryview(buffer) as view, view[index + 8 : end] as covered:
        if crc32c(covered, crc32c(_U64.pack(offset), salt)) != crc:
            return None
    payload = buffer[index + FRAME_HEADER_BYTES : end]
    return Frame(crc, count, first_lsn, durable_upto, prev_crc, payload)


def frame_length(buffer: bytes, index: int) -> int | None:
    """Return the size that a frame at `index` claims, if its header is there and the claim is legal."""
    if len(buffer) - index < FRAME_HEADER_BYTES or buffer[index : index + 4] != FRAME_MAGIC:
        return None
    size = FRAME_HEADER_BYTES + int(_U32.unpack_from(buffer, index + 8)[0])
    return size if size <= FRAME_BYTES_MAX else None


def append_record(frame: bytearray, record: StoredRecord) -> None:
    """Add a record as it was read, whatever its type, to a frame being gathered."""
    name = record.workspace.encode()
    frame += _RECORD_HEAD.pack(2 + len(name) + len(record.body), record.type, len(name))
    frame += name
    frame += record.body


def decode_records(frame: Frame, workspaces: dict[bytes, str]) -> Iterator[StoredRecord]:
    """Yield the frame's records.

    `workspaces` is the caller's memory of names already decoded: a log of a million records holds few.

    Raises:
        MalformedError: the records do not fill the payload, or are not as many as the frame says.
    """
    payload = frame.payload
    index = 0
    lsn = frame.first_lsn
    while index < len(payload):
        if len(payload) - index < _RECORD_HEAD.size:
            raise MalformedError("a record is cut short")
        length, record_type, name_length = _RECORD_HEAD.unpack_from(payload, index)
        end = index + RECORD_LENGTH_BYTES + length
        body_at = index + _RECORD_HEAD.size + name_length
        if body_at > end or end > len(payload):
            raise MalformedError("a record overruns its frame")
        name = payload[index + _RECORD_HEAD.size : body_at]
        workspace = workspaces.get(name)
        if workspace is None:
            try:
                workspace = workspaces[name] = name.decode()
            except UnicodeDecodeError as error:
                raise MalformedError("a workspace name is not UTF-8") from error
        yield StoredRecord(lsn, record_type, workspace, payload[body_at:end])
        index = end
        lsn += 1
    if lsn != frame.lsn_end:
        raise MalformedError(f"the frame holds {lsn - frame.first_lsn} records, not {frame.count}")
