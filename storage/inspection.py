"""Looks into a log that no server has open: what it holds, what is wrong with it, what can be done.

`dump` and `verify` change nothing. `repair` gives up as little as possible and destroys nothing: a segment
that is cut or left out stays beside the log under a name ending in `.damaged`. A torn end is no damage, the
next start drops it. In the log of a running server the end may look torn, because it is being written.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from storage.directory import Directory, File
from storage.errors import CorruptLogError
from storage.frame import (
    FRAME_HEADER_BYTES,
    MalformedError,
    SegmentHeader,
    append_record,
    decode_records,
)
from storage.record import StoredRecord
from storage.recovery import Span, Tail, check_chain, judge_end, lay_out, read_span
from storage.segment import (
    TEMPORARY_SUFFIX,
    SegmentReader,
    SegmentWriter,
    Spare,
    is_segment_name,
)

DAMAGED_SUFFIX = ".damaged"
_REPAIRED_SUFFIX = f".repaired{TEMPORARY_SUFFIX}"
_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong in a file, and at which byte."""

    name: str
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What one segment contributes: LSNs `base_lsn` up to `lsn_end`, without a hole.

    `lsn_seen` is the end of what can be read of it at all, beyond damage.
    """

    name: str
    epoch: int
    base_lsn: int
    lsn_end: int
    lsn_seen: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a log; `lsn_end` is where its readable records end without a hole."""

    segments: tuple[SegmentReport, ...]
    voided: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: Tail | None
    lsn_begin: int
    lsn_end: int

    @property
    def ok(self) -> bool:
        """Return whether a server would start on this log."""
        return not self.damage


@dataclass(frozen=True, slots=True)
class DumpedFrame:
    """A batch as it lies on disk."""

    name: str
    position: int
    bytes: int
    epoch: int
    first_lsn: int
    durable_upto: int
    records: tuple[StoredRecord, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does, or would do.

    `cut` names the segment that is shortened, if any, and `set_aside` those that are left out; the
    originals of all of them are kept. Afterwards the log ends at `lsn_end`. `lost_to` is the end of what
    could be read beyond that.
    """

    cut: str | None
    set_aside: tuple[str, ...]
    lsn_end: int
    lost_to: int

    @property
    def needed(self) -> bool:
        """Return whether there is anything to do."""
        return self.cut is not None or bool(self.set_aside)


def dump(directory: Directory, from_lsn: int = 0) -> Iterator[DumpedFrame | Damage]:
    """Yield what every segment holds from `from_lsn` on, in LSN order, and what cannot be read."""
    spans, _, damage = _survey(directory)
    yield from damage
    for span in spans:
        if span.end is not None and span.end <= from_lsn:
            continue
        with SegmentReader(directory, span.name) as reader:
            yield from _dump_segment(reader, span, from_lsn)


def verify(directory: Directory) -> Report:
    """Read the whole log and report all damage, with its exact place."""
    spans, voided, damage = _survey(directory)
    segments: list[SegmentReport] = []
    torn: Tail | None = None
    lsn_begin = lsn_end = spans[0].base if spans else 0
    before: SegmentReader | None = None
    for span in spans:
        with SegmentReader(directory, span.name) as reader:
            next_lsn = span.base
            try:
                check_chain(before, reader)
                for record in read_span(reader, span, {}):
                    next_lsn = record.lsn + 1
                tail = judge_end(reader, span, next_lsn=next_lsn, cursor=0)
                torn = tail if tail.torn_bytes else None
                before = reader
                seen = next_lsn
            except CorruptLogError as error:
                damage.append(Damage(span.name, error.position, error.reason))
                before = None
                seen = max(next_lsn, _seen_beyond(reader))
        if lsn_end == span.base:
            lsn_end = next_lsn
        segments.append(
            SegmentReport(span.name, span.header.epoch, span.base, next_lsn, seen, reader.size)
        )
    return Report(tuple(segments), voided, tuple(damage), torn, lsn_begin, lsn_end)


def repair(directory: Directory, *, dry_run: bool = True) -> Repair:
    """Make the log end before its first damage; with `dry_run` only say what that would mean.

    What comes after the damage cannot be kept: a log with a hole would give out messages with a hole.
    """
    report = verify(directory)
    lost_to = max((segment.lsn_seen for segment in report.segments), default=0)
    unreadable = {each.name for each in report.damage} - {each.name for each in report.segments}
    plan = Repair(None, tuple(sorted(unreadable)), report.lsn_end, max(lost_to, report.lsn_end))
    if len(unreadable) < len(report.damage):
        plan = _plan_cut(report, plan)
    if not dry_run:
        _carry_out(directory, plan)
    return plan


def _survey(directory: Directory) -> tuple[list[Span], tuple[str, ...], list[Damage]]:
    """Lay out the segments whose headers can be read; report the others."""
    found: list[tuple[str, SegmentHeader, int]] = []
    damage: list[Damage] = []
    for name in filter(is_segment_name, directory.names()):
        try:
            with SegmentReader(directory, name) as reader:
                found.append((name, reader.header, reader.size))
        except CorruptLogError as error:
            damage.append(Damage(name, error.position, error.reason))
    spans, voided = lay_out(found)
    return spans, voided, damage


def _dump_segment(
    reader: SegmentReader, span: Span, from_lsn: int
) -> Iterator[DumpedFrame | Damage]:
    going_on = True
    while going_on:
        try:
            for frame in reader.frames():
                if frame.count and span.end is not None and frame.first_lsn >= span.end:
                    return
                records = tuple(
                    record
                    for record in decode_records(frame, {})
                    if record.lsn >= from_lsn and (span.end is None or record.lsn < span.end)
                )
                if records or frame.lsn_end >= from_lsn:
                    yield DumpedFrame(
                        span.name,
                        reader.offset,
                        frame.size,
                        span.header.epoch,
                        frame.first_lsn,
                        frame.durable_upto,
                        records,
                    )
        except (CorruptLogError, MalformedError) as error:
            yield Damage(span.name, reader.offset, error.reason)
        else:
            end = reader.damage_end()
            if end > reader.offset:
                yield Damage(span.name, reader.offset, f"{end - reader.offset} bytes of no frame")
        going_on = reader.skip_damage()


def _seen_beyond(reader: SegmentReader) -> int:
    """Return the end of the records that can be read somewhere after damage."""
    seen = 0
    while reader.skip_damage():
        try:
            for frame in reader.frames():
                seen = max(seen, frame.lsn_end)
        except CorruptLogError:
            continue
    return seen


def _plan_cut(report: Report, plan: Repair) -> Repair:
    """Cut the segment in which the readable records end, and leave out all after it."""
    damaged = {each.name for each in report.damage}
    cut = None
    set_aside = list(plan.set_aside)
    for segment in report.segments:
        if segment.base_lsn >= report.lsn_end and segment.base_lsn > report.lsn_begin:
            set_aside.append(segment.name)
        elif segment.lsn_end == report.lsn_end and segment.name in damaged:
            cut = segment.name
    return Repair(cut, tuple(sorted(set_aside)), plan.lsn_end, plan.lost_to)


def _carry_out(directory: Directory, plan: Repair) -> None:
    """Change the directory step by step; after any of them the same repair can be run again."""
    if plan.cut is not None:
        _write_readable_part(directory, plan.cut, plan.lsn_end)
        _copy(directory, plan.cut, plan.cut + DAMAGED_SUFFIX)
        directory.sync()
    # From the end: a log that was only partly shortened has no hole.
    for name in sorted(plan.set_aside, reverse=True):
        directory.rename(name, name + DAMAGED_SUFFIX)
        directory.sync()
    if plan.cut is not None:
        directory.rename(plan.cut + _REPAIRED_SUFFIX, plan.cut)
        directory.sync()


def _write_readable_part(directory: Directory, name: str, lsn_end: int) -> None:
    """Write what can be read of a segment, durably, under a name of its own."""
    target = name + _REPAIRED_SUFFIX
    with SegmentReader(directory, name) as reader:
        header = reader.header
        span = Span(name, header, header.base_lsn, lsn_end, reader.size)
        opened = SegmentHeader(header.node_id, header.epoch, header.base_lsn, None, header.prev_crc)
        writer = SegmentWriter(Spare(_create_anew(directory, target), target, 0), opened)
        for record in read_span(reader, span, {}):
            frame = bytearray(FRAME_HEADER_BYTES)
            append_record(frame, record)
            writer.append(frame, count=1, first_lsn=record.lsn, durable_upto=record.lsn)
    writer.sync()
    writer.close()


def _copy(directory: Directory, name: str, target: str) -> None:
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
