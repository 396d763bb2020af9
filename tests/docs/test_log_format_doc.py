"""docs/log-format.md against the code: the reader on that page reads what the code writes."""

from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import storage.frame
from storage.commitlog import LogOptions
from storage.directory import LOCK_NAME, RealDirectory
from storage.frame import FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from storage.inspection import DAMAGED_SUFFIX, DumpedFrame, dump
from storage.record import RecordType
from storage.recovery import TORN_SUFFIX, recover
from storage.segment import TEMPORARY_SUFFIX
from tests.docs.markdown import code_blocks, plain, read_page, table
from tests.storage.logs import NODE_ID, append, open_log, write_segment

PAGE = read_page("log-format.md")


def names_in_the_page() -> dict[str, Any]:
    (source,) = code_blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(source, names)
    return names


def offsets(heading: str) -> dict[str, tuple[str, str]]:
    rows = table(PAGE, heading, "offset").rows
    return {row["field"]: (row["offset"].replace(",", ""), row["bytes"]) for row in rows}


def example() -> bytes:
    """The segment in the page's hex dumps."""
    data = bytearray(SEGMENT_HEADER_BYTES)
    for line in "".join(code_blocks(PAGE, "hex")).splitlines():
        offset, _, text = line.partition("  ")
        piece = bytes.fromhex(text)
        data[int(offset, 16) : int(offset, 16) + len(piece)] = piece
    return bytes(data)


def test_the_fields_stand_where_the_page_says() -> None:
    segment, frame = offsets("A segment"), offsets("A frame")

    assert list(segment)[:8] == [
        "magic", "version", "reserved", "node id", "epoch", "base LSN", "sealed end", "previous CRC",
    ]  # fmt: skip
    sizes = [int(size) for _, size in segment.values() if size != "4,032"]
    assert sum(sizes) + 4032 == SEGMENT_HEADER_BYTES
    assert [int(at) for at, _ in frame.values()] == [0, 4, 8, 12, 16, 24, 32, FRAME_HEADER_BYTES]
    for rows in (segment, frame):
        places = [(int(at), size.replace(",", "")) for at, size in rows.values()]
        for (at, size), (following, _) in pairwise(places):
            assert at + int(size) == following
    assert table(PAGE, "A segment", "offset").rows[0][""] == "`FF 52 49 4E 47 4C 4F 47`"
    assert table(PAGE, "A frame", "offset").rows[0][""] == "`FF 52 4C 42`"
    assert bytes.fromhex("FF 52 4C 42") == storage.frame.FRAME_MAGIC
    assert f"at most {FRAME_BYTES_MAX:,} bytes" in PAGE


def test_the_types_of_record_are_those_of_the_code() -> None:
    rows = table(PAGE, "A record", "type").rows

    assert {row["name"].upper(): int(row["type"]) for row in rows} == {
        kind.name: kind.value for kind in RecordType
    }


def test_the_names_of_files_are_those_of_the_code() -> None:
    documented = " ".join(plain(row["name"]) for row in table(PAGE, "Files", "name").rows)

    for name in (TEMPORARY_SUFFIX, TORN_SUFFIX, DAMAGED_SUFFIX, LOCK_NAME):
        assert name in documented
    defaults = {each.name: each.default for each in fields(LogOptions)}
    assert defaults["segment_bytes"] == 128 * 1024 * 1024
    assert defaults["first_segment_bytes"] == 24 * 1024 * 1024
    assert defaults["batch_bytes_max"] == 512 * 1024


def test_the_example_is_a_segment() -> None:
    names = names_in_the_page()
    assert names["crc32c"](b"123456789") == 0xE3069283

    frames = list(names["read_frames"](example()))
    records = [record for frame in frames for record in names["read_records"](*frame)]

    assert [len(payload) for _, payload in frames][-1] == 0
    assert [(lsn, kind, workspace) for lsn, kind, workspace, _ in records] == [
        (0, RecordType.SESSION, "default"),
        (1, RecordType.MESSAGE, "default"),
        (2, RecordType.READ, "default"),
    ]


def test_the_example_is_one_that_the_code_reads(tmp_path: Path) -> None:
    name = "00000000000000000000-0000000001.log"
    with RealDirectory(tmp_path) as directory:
        (tmp_path / name).write_bytes(example())
        frames = [each for each in dump(directory) if isinstance(each, DumpedFrame)]

    assert [(frame.position, len(frame.records)) for frame in frames] == [
        (0x1000, 1),
        (0x10E1, 1),
        (0x11CF, 1),
        (0x1245, 0),
    ]


@pytest.mark.parametrize("cursor", [0, 3, 12])
def test_the_reader_reads_what_recovery_left(tmp_path: Path, cursor: int) -> None:
    with RealDirectory(tmp_path) as directory:
        first = write_segment(directory, [5, 0])
        write_segment(directory, [5, 5], base_lsn=5, prev_crc=first.chain_crc)
        recover(directory, node_id=NODE_ID, epoch=2, cursor=cursor)
        write_segment(directory, [2], epoch=3, base_lsn=14)
        dumped = [
            (record.lsn, record.type, record.workspace, record.body)
            for frame in dump(directory)
            if isinstance(frame, DumpedFrame)
            for record in frame.records
        ]

    assert [lsn for lsn, *_ in dumped] == list(range(16))
    assert list(names_in_the_page()["read_log"](tmp_path)) == dumped


async def test_the_reader_reads_what_a_log_wrote(tmp_path: Path) -> None:
    with RealDirectory(tmp_path) as directory:
        for epoch in (1, 2):
            async with open_log(directory, epoch=epoch, cursor=500 * (epoch - 1)) as (log, _):
                append(log, 2000)

    records = names_in_the_page()["read_log"](tmp_path)
    assert [lsn for lsn, *_ in records] == list(range(4000))
