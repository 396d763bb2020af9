"""Finds out what a log holds, and makes it safe to serve.

**Which records count.** Epochs overlap: a segment of epoch E with base LSN B voids every record from B on
in segments of lower epochs. What is left of each segment is its span; the spans, by LSN, are the log.

**Where the log ends.** Every span but the last has a known end, because a segment begins only after all
before it was synced: damage below that end is corruption. In the last span the frames are read until one
is not valid. What stands there decides::

    only zeros                                           clean end
    anything else, and a valid frame after it            corruption: that frame proves the sync of this one
    damage longer than one write can be                  corruption
    damage in a segment that was sealed when named       corruption
    the log would end below the flushed cursor           corruption
    else                                                 a torn write, never acknowledged: dropped, copy kept

Corruption is refused with file and offset; nothing has been changed then. It is never skipped.

**What another node took over.** Whoever seals an epoch goes on from what the archive has of it, as rows and as
batches. So records of epochs up to the sealed one that are past the cursor do not count any more: their
segments are copied under a name ending in `.set-aside`, for whoever wants to know what they were, and the log
goes on at the cursor. A log of such epochs may also end below the cursor: a batch can be in the archive before it
is on the disk. And where nothing was sealed, a batch that the archive has and the log lacks is added to it.

**What is done.** The records that the archive does not have yet (the survivors) are written into a new,
sealed segment of the new epoch, synced and named, before anyone sees them. `read` may return bytes that the
disk never took: after a failed fsync the kernel marks the pages clean, and after `kill -9` nobody ever asked
for them to be synced. So nothing that was only read is trusted until it has been written again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from storage.directory import Directory, File
from storage.errors import (
    ArchiveBehindLogError,
    CorruptLogError,
    FencedError,
    LogBehindCursorError,
)
from storage.frame import (
    BATCH_BYTES_LIMIT,
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    MalformedError,
    SegmentHeader,
    append_record,
    decode_records,
)
from storage.record import StoredRecord
from storage.segment import (
    TEMPORARY_SUFFIX,
    SegmentReader,
    SegmentWriter,
    Spare,
    is_segment_name,
)

TORN_SUFFIX = ".torn"
SET_ASIDE_SUFFIX = ".set-aside"
REWRITE_NAME = f"rewrite{TEMPORARY_SUFFIX}"
_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """The LSNs that one segment contributes to the log; `end` is None for the segment that may grow."""

    name: str
    header: SegmentHeader
    base: int
    end: int | None
    size: int


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the valid frames of the last segment end, and how many torn bytes stand there."""

    name: str
    offset: int
    torn_bytes: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a log holds, from a given LSN on. `tail` is None if there is no segment at all."""

    spans: tuple[Span, ...]
    voided: tuple[str, ...]
    records: list[StoredRecord]
    next_lsn: int
    tail: LogEnd | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """A log that is safe to serve: what survived, and where the next segment continues."""

    next_lsn: int
    chain_crc: int
    survivors: list[StoredRecord]
    torn_bytes: int
    segments: tuple[Span, ...]


def recover(
    directory: Directory,
    *,
    node_id: bytes,
    epoch: int,
    cursor: int,
    sealed_epoch: int = 0,
    replicated: Sequence[StoredRecord] = (),
) -> Recovery:
    """Read what the log holds from `cursor` on, and rewrite it under `epoch`.

    `replicated` is what the archive has of it as batches, from `cursor` on and without a hole.

    Raises:
        CorruptLogError: damage that is not a torn write; or the log and the batches differ.
        LogBehindCursorError: the archive holds records that the log does not.
        ArchiveBehindLogError: the log no longer holds the records after `cursor`.
        FencedError: the log was already written under this epoch or a later one.
    """
    findings = examine(directory, node_id=node_id, cursor=cursor, sealed_epoch=sealed_epoch)
    if any(span.header.epoch >= epoch for span in findings.spans):
        raise FencedError(node_id.hex(), epoch)
    taken_over = _is_taken_over(findings, cursor, sealed_epoch)
    if findings.next_lsn < cursor and not taken_over:
        raise LogBehindCursorError(findings.next_lsn, cursor)
    kept = () if taken_over else findings.records
    survivors = _with_replicated(directory, kept, replicated, cursor)

    for name in directory.names():
        if name.endswith(TEMPORARY_SUFFIX):
            directory.unlink(name)
    tail = findings.tail
    if tail is not None and tail.torn_bytes:
        _keep_torn_bytes(directory, tail)
    if taken_over:
        _set_aside(directory, findings, cursor)
    next_lsn = cursor + len(survivors) if taken_over or survivors else findings.next_lsn
    spans = [
        replace(span, end=findings.next_lsn) if span.end is None else span
        for span in findings.spans
    ]
    chain_crc = 0
    voided = list(findings.voided)
    if survivors or taken_over:
        rewritten, chain_crc = write_sealed(
            directory, survivors, node_id=node_id, epoch=epoch, base_lsn=cursor
        )
        # Below a hole nothing can be read on from: the archive has it.
        low = [] if findings.next_lsn < cursor else [span for span in spans if span.base < cursor]
        voided += [span.name for span in spans if span not in low]
        spans = [replace(span, end=min(span.end or 0, cursor)) for span in low]
        # An empty one only marks where the log goes on: the first segment takes its place, and its name.
        spans += [rewritten] if survivors else []
    if tail is not None and tail.name not in voided:
        _cut_tail(directory, tail)
    for name in voided:
        directory.unlink(name)
    directory.sync()
    return Recovery(next_lsn, chain_crc, survivors, tail.torn_bytes if tail else 0, tuple(spans))


def _is_taken_over(findings: Findings, cursor: int, sealed_epoch: int) -> bool:
    """Tell whether the log's end does not count any more: it is from a sealed epoch, and not at the cursor."""
    if not findings.spans or findings.spans[-1].header.epoch > sealed_epoch:
        return False
    return findings.next_lsn != cursor


def _with_replicated(
    directory: Directory,
    records: Sequence[StoredRecord],
    replicated: Sequence[StoredRecord],
    cursor: int,
) -> list[StoredRecord]:
    """Return the log's own records and those that only the archive has, from `cursor` on without a hole."""
    for own, other in zip(records, replicated, strict=False):
        if own != other:
            reason = "the archive has another record there, under log_batches"
            raise CorruptLogError(directory.path, own.lsn, reason)
    survivors = [*records, *replicated[len(records) :]]
    assert all(record.lsn == cursor + place for place, record in enumerate(survivors))
    return survivors


def _set_aside(directory: Directory, findings: Findings, cursor: int) -> None:
    """Copy the segments whose records past the cursor do not count any more."""
    if findings.next_lsn <= cursor:
        return
    for span in findings.spans:
        if span.end is None or span.end > cursor:
            copy_file(directory, span.name, span.name + SET_ASIDE_SUFFIX)
    directory.sync()


def examine(
    directory: Directory, *, node_id: bytes | None, cursor: int, sealed_epoch: int = 0
) -> Findings:
    """Decide what the log holds from `cursor` on, changing nothing.

    Segments that end below `cursor` are not read beyond their headers. With `node_id` None any node's log
    is accepted.

    Raises:
        CorruptLogError: damage that is not a torn write.
        ArchiveBehindLogError: the log no longer holds the records after `cursor`.
    """
    spans, voided = lay_out(_read_headers(directory, node_id))
    if not spans:
        return Findings((), voided, [], 0, None)
    if spans[0].base > cursor:
        raise ArchiveBehindLogError(cursor, spans[0].base)
    records: list[StoredRecord] = []
    workspaces: dict[bytes, str] = {}
    next_lsn = spans[0].base
    tail = None
    before: SegmentReader | None = None
    for span in spans:
        if span.end is not None and span.end <= cursor and span is not spans[-1]:
            next_lsn = span.end
            before = None
            continue
        with SegmentReader(directory, span.name) as reader:
            check_chain(before, reader)
            for record in read_span(reader, span, workspaces):
                next_lsn = record.lsn + 1
                if record.lsn >= cursor:
                    records.append(record)
            # What others took over may have been in the archive before it was whole on this disk.
            known = 0 if span.header.epoch <= sealed_epoch else cursor
            tail = judge_end(reader, span, next_lsn=next_lsn, cursor=known)
            before = reader
    return Findings(tuple(spans), voided, records, next_lsn, tail)


def read_span(
    reader: SegmentReader, span: Span, workspaces: dict[bytes, str]
) -> Iterator[StoredRecord]:
    """Yield the records of a span, as far as its frames are valid.

    Raises:
        CorruptLogError: a valid frame holds what no writer produces.
    """
    for frame in reader.frames():
        # A trailing frame there belongs to the span: its CRC is what the next segment continues.
        if frame.count and span.end is not None and frame.first_lsn >= span.end:
            return
        try:
            for record in decode_records(frame, workspaces):
                if span.end is None or record.lsn < span.end:
                    yield record
        except MalformedError as error:
            raise CorruptLogError(reader.path, reader.offset, error.reason) from error


def lay_out(
    found: list[tuple[str, SegmentHeader, int]],
) -> tuple[list[Span], tuple[str, ...]]:
    """Return the spans by LSN, and the names of segments that later epochs void altogether."""
    found = sorted(found, key=lambda entry: (entry[1].epoch, entry[1].base_lsn))
    spans: list[Span] = []
    voided: list[str] = []
    end: int | None = None  # where what comes after begins
    voided_from: int | None = None  # where later epochs begin
    epoch = -1
    for name, header, size in reversed(found):
        if header.epoch != epoch:
            epoch = header.epoch
            voided_from = end
        if voided_from is not None and header.base_lsn >= voided_from:
            voided.append(name)
            continue
        own_end = end if header.sealed_end is None or end is not None else header.sealed_end
        spans.append(Span(name, header, header.base_lsn, own_end, size))
        end = header.base_lsn
    spans.reverse()
    return spans, tuple(voided)


def check_chain(before: SegmentReader | None, reader: SegmentReader) -> None:
    """Refuse a segment that does not continue the one before it in the same epoch."""
    if before is None or before.header.epoch != reader.header.epoch:
        return
    if before.chain_crc != reader.header.prev_crc:
        raise CorruptLogError(reader.path, 0, f"it does not continue {before.name}")


def judge_end(reader: SegmentReader, span: Span, *, next_lsn: int, cursor: int) -> LogEnd:
    """Tell a clean end and a torn write from corruption: the table in this module's docstring.

    Raises:
        CorruptLogError: damage that is not a torn write.
    """
    if span.end is not None:
        if next_lsn != span.end:
            reason = f"the records from LSN {next_lsn} to {span.end} are missing or damaged"
            raise CorruptLogError(reader.path, reader.offset, reason)
        return LogEnd(span.name, reader.offset, 0)
    damage_end = reader.damage_end()
    torn_bytes = damage_end - reader.offset
    if torn_bytes == 0:
        return LogEnd(span.name, reader.offset, 0)
    valid_at = reader.next_valid_frame(damage_end)
    if valid_at is not None:
        raise CorruptLogError(
            reader.path, reader.offset, f"damage, and a valid frame after it at byte {valid_at}"
        )
    if torn_bytes > FRAME_BYTES_MAX:
        raise CorruptLogError(
            reader.path, reader.offset, f"{torn_bytes} bytes of damage, more than one write"
        )
    if next_lsn < cursor:
        raise CorruptLogError(
            reader.path,
            reader.offset,
            f"damage at LSN {next_lsn}, below the flushed cursor {cursor}",
        )
    return LogEnd(span.name, reader.offset, torn_bytes)


def _read_headers(
    directory: Directory, node_id: bytes | None
) -> list[tuple[str, SegmentHeader, int]]:
    found = []
    for name in filter(is_segment_name, directory.names()):
        with SegmentReader(directory, name) as reader:
            owner = reader.header.node_id
            if node_id is not None and owner != node_id:
                raise CorruptLogError(reader.path, 0, f"it belongs to node {owner.hex()}")
            found.append((name, reader.header, reader.size))
    return found


def _keep_torn_bytes(directory: Directory, tail: LogEnd) -> None:
    """Copy the torn bytes beside the log, for whoever wants to know what they were."""
    with SegmentReader(directory, tail.name) as reader:
        torn = reader.read(tail.offset, tail.torn_bytes)
    name = f"{tail.name}@{tail.offset}{TORN_SUFFIX}"
    if name in directory.names():
        directory.unlink(name)
    file = directory.create(name)
    file.write_at(0, torn)
    file.sync()
    file.close()
    directory.sync()


def write_sealed(
    directory: Directory,
    records: list[StoredRecord],
    *,
    node_id: bytes,
    epoch: int,
    base_lsn: int,
) -> tuple[Span, int]:
    """Write `records` into a sealed segment of `epoch`; return its span and its last CRC."""
    end = base_lsn + len(records)
    header = SegmentHeader(node_id, epoch, base_lsn, sealed_end=end, prev_crc=0)
    writer = SegmentWriter(Spare(directory.create(REWRITE_NAME), REWRITE_NAME, 0), header)
    frame = bytearray(FRAME_HEADER_BYTES)
    first_lsn = base_lsn
    for record in records:
        append_record(frame, record)
        if len(frame) >= BATCH_BYTES_LIMIT or record.lsn + 1 == end:
            count = record.lsn + 1 - first_lsn
            writer.append(frame, count=count, first_lsn=first_lsn, durable_upto=first_lsn)
            first_lsn += count
            frame = bytearray(FRAME_HEADER_BYTES)
    writer.publish(directory)
    writer.close()
    return Span(writer.name, header, base_lsn, end, writer.offset), writer.chain_crc


def _cut_tail(directory: Directory, tail: LogEnd) -> None:
    """Give back the zeros and torn bytes after the last valid frame, or a crash loop fills the disk."""
    file = directory.open(tail.name, writable=True)
    if file.size() > tail.offset:
        file.truncate(tail.offset)
        file.sync()
    file.close()


def copy_file(directory: Directory, name: str, target: str) -> None:
    """Copy a file, durably but for its name; a copy that was begun before is made again."""
    source = directory.open(name)
    copy = _create_anew(directory, target)
    offset = 0
    while piece := source.read_at(offset, _COPY_BYTES):
        copy.write_at(offset, piece)
        offset += len(piece)
    copy.sync()
    copy.close()
    source.close()


def _create_anew(directory: Directory, name: str) -> File:
    """Create a file; one that an interrupted repair left is made again."""
    if name in directory.names():
        directory.unlink(name)
    return directory.create(name)
