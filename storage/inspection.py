"""Looks into a log that no server has open: what it holds, what is wrong with it, what can be done.

`dump` and `verify` change nothing. `repair` knows how far the archive came, gives up as little as
possible of the rest and destroys nothing: a segment that is left out stays beside the log under a name ending in `.damaged`. A torn end is no damage, the
next start drops it. In the log of a running server the end may look torn, because it is being written.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from storage.directory import Directory
from storage.errors import ArchiveBehindLogError, CorruptLogError, LogBehindCursorError
from storage.frame import FRAME_BYTES_MAX, MalformedError, SegmentHeader, decode_records
from storage.record import StoredRecord
from storage.recovery import (
    REWRITE_NAME,
    LogEnd,
    Span,
    check_chain,
    copy_file,
    examine,
    judge_end,
    lay_out,
    read_span,
    write_sealed,
)
from storage.segment import SegmentReader, base_lsn_of, highest_epoch, is_segment_name

DAMAGED_SUFFIX = ".damaged"


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
    torn: LogEnd | None
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
class Lost:
    """LSNs that a repaired log lacks, and the archive too; `end` is None where it cannot be known.

    With `readable`, they can be read behind the damage, in what is kept beside the log.
    """

    begin: int
    end: int | None
    readable: bool


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does, or would do.

    `set_aside` names the segments whose originals are kept beside the log. With `rewrites`, a new segment
    takes the records from the cursor on, as far as there is no hole, and all after it is left out. What the
    archive does not have and the log then does not either is `lost`.
    """

    cursor: int
    lsn_end: int
    rewrites: bool
    set_aside: tuple[str, ...]
    lost: tuple[Lost, ...]

    @property
    def needed(self) -> bool:
        """Return whether there is anything to do."""
        return self.rewrites or bool(self.set_aside)


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
    torn: LogEnd | None = None
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


def check_start(directory: Directory, *, node_id: bytes, cursor: int) -> None:
    """Raise what a start on this log would; the archive has everything below `cursor`.

    Reads what a start reads: the headers, and the records that the archive does not have.

    Raises:
        CorruptLogError: damage that is not a torn write, or another node's log.
        LogBehindCursorError: the archive holds records that the log does not.
        ArchiveBehindLogError: the log no longer holds the records after `cursor`.
    """
    next_lsn = examine(directory, node_id=node_id, cursor=cursor).next_lsn
    if next_lsn < cursor:
        raise LogBehindCursorError(next_lsn, cursor)


def repair(directory: Directory, *, node_id: bytes, cursor: int, dry_run: bool = True) -> Repair:
    """Make the log one that starts; with `dry_run` only say what that would mean.

    The archive has everything below `cursor`, so what is damaged there is set aside and nothing is lost.
    From `cursor` on, the records are kept up to the first that cannot be read: a log with a hole would
    give out messages with a hole.

    Raises:
        ArchiveBehindLogError: the log begins above `cursor`; no repair helps with that.
        CorruptLogError: a segment belongs to another node.
    """
    names = [name for name in directory.names() if is_segment_name(name)]
    if not names and cursor == 0:
        return Repair(0, 0, rewrites=False, set_aside=(), lost=())
    base_lsn = min(map(base_lsn_of, names), default=cursor)
    if base_lsn > cursor:
        raise ArchiveBehindLogError(cursor, base_lsn)
    for span in _survey(directory)[0]:
        if span.header.node_id != node_id:
            owner = span.header.node_id.hex()
            raise CorruptLogError(f"{directory.path}/{span.name}", 0, f"it belongs to node {owner}")
    report = verify(directory)
    plan = _plan(directory, report, cursor)
    if not dry_run and plan.needed:
        _carry_out(directory, plan, node_id)
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
                end = reader.next_valid_frame(end) or end
                yield Damage(
                    span.name, reader.offset, f"{end - reader.offset} bytes cannot be read"
                )
        going_on = reader.skip_damage()


def _seen_beyond(reader: SegmentReader) -> int:
    """Return the end of the records that can be read somewhere after damage."""
    seen = 0
    while reader.skip_damage():
        with suppress(CorruptLogError):
            for frame in reader.frames():
                seen = max(seen, frame.lsn_end)
    return seen


def _plan(directory: Directory, report: Report, cursor: int) -> Repair:
    """Keep the whole segments that lead up to the cursor; rewrite from there if the rest is not whole."""
    headless = _headless(report)
    damaged = {each.name for each in report.damage} - headless
    kept = _lead_up(report, damaged, cursor)
    behind = [each for each in report.segments if each.base_lsn > cursor]
    lost_end = _lost_end(directory, report, headless, cursor)
    if kept and damaged.isdisjoint(each.name for each in behind):
        stay = {each.name for each in (*kept, *behind)} if damaged else set()
        aside = {each.name for each in report.segments if damaged and each.name not in stay}
        return Repair(
            cursor,
            report.segments[-1].lsn_end,
            rewrites=False,
            set_aside=tuple(sorted(aside | headless)),
            lost=lost_end,
        )
    readable = _readable(directory, report, cursor)
    lsn_end = readable[0][1] if readable and readable[0][0] == cursor else cursor
    stay = {each.name for each in kept if each.base_lsn < cursor}
    aside = {each.name for each in report.segments if each.name not in stay}
    lost = (*_holes(readable, lsn_end), *lost_end)
    return Repair(
        cursor, lsn_end, rewrites=True, set_aside=tuple(sorted(aside | headless)), lost=lost
    )


def _headless(report: Report) -> set[str]:
    """Return the files whose headers cannot be read."""
    return {each.name for each in report.damage} - {each.name for each in report.segments}


def _lead_up(report: Report, damaged: set[str], cursor: int) -> list[SegmentReport]:
    """Return the segments that hold all from some LSN up to the cursor; the last one may go beyond."""
    kept: list[SegmentReport] = []
    needed_to = cursor
    for each in reversed([each for each in report.segments if each.base_lsn <= cursor]):
        if each.lsn_end < needed_to or each.name in damaged:
            break
        kept.append(each)
        needed_to = each.base_lsn
    kept.reverse()
    return kept


def _readable(directory: Directory, report: Report, cursor: int) -> list[tuple[int, int]]:
    """Return the ranges of LSNs from the cursor on that can be read and continue, ascending."""
    foreign = {each.name for each in report.damage if each.position == 0}
    breaks = {each.base_lsn for each in report.segments if each.name in foreign} - {cursor}
    ranges: list[tuple[int, int]] = []
    for found in dump(directory, cursor):
        if isinstance(found, DumpedFrame):
            for record in found.records:
                if ranges and ranges[-1][1] == record.lsn and record.lsn not in breaks:
                    ranges[-1] = (ranges[-1][0], record.lsn + 1)
                else:
                    ranges.append((record.lsn, record.lsn + 1))
    return ranges


def _holes(readable: list[tuple[int, int]], lsn_end: int) -> Iterator[Lost]:
    """Yield what cannot be read beyond `lsn_end`, and what can but comes after it."""
    for begin, end in readable:
        if end <= lsn_end:
            continue
        if begin > lsn_end:
            yield Lost(lsn_end, begin, readable=False)
        yield Lost(begin, end, readable=True)
        lsn_end = end


def _lost_end(
    directory: Directory, report: Report, headless: set[str], cursor: int
) -> tuple[Lost, ...]:
    """Say whether the log went on, or may have, behind the last record that can be read."""
    seen = max((each.lsn_seen for each in report.segments), default=0)
    unknown = Lost(max(seen, cursor), None, readable=False)
    if seen < cursor or any(base_lsn_of(name) >= seen for name in headless):
        return (unknown,)
    if not report.segments:
        return ()
    with SegmentReader(directory, report.segments[-1].name) as reader:
        with suppress(CorruptLogError):
            for _ in reader.frames():
                pass
        _seen_beyond(reader)
        sealed_end = reader.header.sealed_end
        if sealed_end is not None and seen < sealed_end:
            return (Lost(seen, sealed_end, readable=False),)
        # Up to one write is a torn one, which was never acknowledged.
        return (unknown,) if reader.damage_end() - reader.offset > FRAME_BYTES_MAX else ()


def _carry_out(directory: Directory, plan: Repair, node_id: bytes) -> None:
    """Change the directory step by step; after any of them the same repair can be run again.

    The new segment voids, by its epoch, all from the cursor on. A start removes what is void, so the
    originals are copied before.
    """
    names = plan.set_aside
    if plan.rewrites:
        for name in names:
            copy_file(directory, name, name + DAMAGED_SUFFIX)
        directory.sync()
        records = [
            record
            for found in dump(directory, plan.cursor)
            if isinstance(found, DumpedFrame)
            for record in found.records
            if record.lsn < plan.lsn_end
        ]
        if REWRITE_NAME in directory.names():
            directory.unlink(REWRITE_NAME)
        write_sealed(
            directory,
            records,
            node_id=node_id,
            epoch=highest_epoch(directory) + 1,
            base_lsn=plan.cursor,
        )
    for name in names:
        directory.rename(name, name + DAMAGED_SUFFIX)
        directory.sync()
