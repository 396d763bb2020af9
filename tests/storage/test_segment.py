from random import Random

import pytest

from storage.errors import CorruptLogError
from storage.frame import (
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    append_record,
)
from storage.segment import (
    FILL_BYTES,
    SegmentReader,
    SegmentWriter,
    fill_spare,
    highest_epoch,
    is_segment_name,
    reserve_spare,
    segment_name,
)
from tests.fakes.directory import CrashingDirectory, PowerCutError
from tests.storage.logs import NODE_ID, add_frame, record, write_segment


def read_counts(directory: CrashingDirectory, name: str) -> list[int]:
    with SegmentReader(directory, name) as reader:
        return [frame.count for frame in reader.frames()]


def test_names_sort_by_base_lsn() -> None:
    assert segment_name(12, 3) == "00000000000000000012-0000000003.log"
    names = [segment_name(base, epoch) for base in (0, 9, 10, 10**18) for epoch in (1, 20)]
    assert names == sorted(names)
    assert all(is_segment_name(name) for name in names)
    assert not is_segment_name("lock")
    assert not is_segment_name(segment_name(0, 1) + ".torn")


def test_the_highest_epoch_of_a_log_is_told_from_its_names() -> None:
    directory = CrashingDirectory()
    assert highest_epoch(directory) == 0
    for name in (segment_name(500, 3), segment_name(7, 12), "spare-1.tmp", "lock"):
        directory.create(name).close()
    assert highest_epoch(directory) == 12


def test_frames_come_back_in_order() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [1, 5, 0, 2])
    with SegmentReader(directory, written.name) as reader:
        frames = list(reader.frames())
        assert [(frame.first_lsn, frame.count) for frame in frames] == [
            (0, 1),
            (1, 5),
            (6, 0),
            (6, 2),
        ]
        assert reader.offset == written.frame_ends[-1]
        assert reader.chain_crc == written.chain_crc
        assert reader.damage_end() == reader.offset


def test_a_spare_is_reserved_and_filled_piece_by_piece() -> None:
    directory = CrashingDirectory()
    spare = reserve_spare(directory, "s.tmp", FILL_BYTES + 100)
    assert spare.file.size() == FILL_BYTES + 100
    assert fill_spare(spare, 0) == FILL_BYTES
    assert fill_spare(spare, FILL_BYTES) == FILL_BYTES + 100
    assert directory.counts["sync"] == 2
    assert spare.room_bytes == FILL_BYTES + 100 - SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES


def test_a_spare_that_does_not_fit_leaves_nothing() -> None:
    directory = CrashingDirectory()
    directory.faults.capacity_bytes = 1000
    with pytest.raises(OSError, match="No space"):
        reserve_spare(directory, "s.tmp", 1001)
    assert directory.names() == []


def test_a_segment_gets_its_name_only_when_it_is_durable() -> None:
    """Cut the power at every operation: the named file is either absent or whole."""
    steps = [
        "create",
        "allocate",
        "write header",
        "write frame",
        "sync",
        "rename",
        "sync directory",
    ]
    for cut_at in range(1, len(steps) + 1):
        directory = CrashingDirectory()
        directory.faults.power_cut_at = cut_at
        with pytest.raises(PowerCutError):
            write_segment(directory, [3])
        for seed in range(8):
            after = directory.crash(Random(seed))
            for name in filter(is_segment_name, after.names()):
                assert read_counts(after, name) == [3]


def test_a_named_segment_survives_a_power_cut() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [3])
    for seed in range(8):
        assert read_counts(directory.crash(Random(seed)), written.name) == [3]


def test_room_is_kept_for_a_trailing_frame() -> None:
    directory = CrashingDirectory()
    size = SEGMENT_HEADER_BYTES + 500
    writer = SegmentWriter(
        reserve_spare(directory, "s.tmp", size), SegmentHeader(NODE_ID, 1, 0, None, 0)
    )
    writer.append(bytearray(writer.room_bytes), count=0, first_lsn=0, durable_upto=0)
    assert writer.room_bytes == 0
    writer.append(bytearray(FRAME_HEADER_BYTES), count=0, first_lsn=0, durable_upto=0)
    assert writer.offset == size == len(directory.content("s.tmp"))


def test_a_frame_larger_than_the_reading_window_is_read() -> None:
    directory = CrashingDirectory()
    writer = SegmentWriter(
        reserve_spare(directory, "s.tmp", 0), SegmentHeader(NODE_ID, 1, 0, None, 0)
    )
    large = b"x" * 2_000_000
    for lsn in range(0, 16, 2):
        frame = bytearray(FRAME_HEADER_BYTES)
        append_record(frame, record(lsn, large))
        append_record(frame, record(lsn + 1, large))
        assert len(frame) < FRAME_BYTES_MAX
        writer.append(frame, count=2, first_lsn=lsn, durable_upto=lsn)
    writer.publish(directory)
    assert read_counts(directory, writer.name) == [2] * 8


def test_reading_stops_at_a_frame_that_is_not_valid() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [1, 1, 1])
    directory.damage(written.name, written.frame_ends[1] + 5)
    with SegmentReader(directory, written.name) as reader:
        assert len(list(reader.frames())) == 2
        assert reader.offset == written.frame_ends[1]
        assert reader.damage_end() == written.frame_ends[2]
        assert reader.next_valid_frame(reader.damage_end()) is None


@pytest.mark.parametrize("shift", range(-4, 3))
def test_a_valid_frame_after_damage_is_found_across_pieces(shift: int) -> None:
    """The frame after the damage begins just before, on and after the end of a piece of the scan."""
    directory = CrashingDirectory()
    writer = SegmentWriter(
        reserve_spare(directory, "s.tmp", 0), SegmentHeader(NODE_ID, 1, 0, None, 0)
    )
    damaged = bytearray(b"y") * (FILL_BYTES + 1 + shift)
    writer.append(damaged, count=2, first_lsn=0, durable_upto=0)
    begins = writer.offset
    writer.append(bytearray(FRAME_HEADER_BYTES), count=0, first_lsn=2, durable_upto=2)
    writer.publish(directory)
    directory.damage(writer.name, SEGMENT_HEADER_BYTES + 40)
    with SegmentReader(directory, writer.name) as reader:
        assert list(reader.frames()) == []
        assert reader.next_valid_frame(reader.damage_end()) == begins


@pytest.mark.parametrize("wrong", ["LSN", "chain", "durable"])
def test_a_frame_that_does_not_continue_the_one_before_is_corruption(wrong: str) -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [1])
    add_frame(
        directory,
        written,
        b"",
        count=0,
        first_lsn=2 if wrong == "LSN" else 1,
        prev_crc=written.chain_crc ^ (wrong == "chain"),
        durable_upto=2 if wrong == "durable" else 1,
    )
    with pytest.raises(CorruptLogError) as caught:
        read_counts(directory, written.name)
    assert caught.value.position == written.frame_ends[0]


def test_a_damaged_header_is_refused_with_its_place() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [1])
    directory.damage(written.name, 100)
    with pytest.raises(CorruptLogError, match="checksum") as caught:
        SegmentReader(directory, written.name)
    assert (caught.value.path, caught.value.position) == (f"/crashing/{written.name}", 0)


def test_a_renamed_segment_is_refused() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [1])
    directory.rename(written.name, segment_name(5, 1))
    with pytest.raises(CorruptLogError, match="another segment"):
        SegmentReader(directory, segment_name(5, 1))
