import pytest
from fastcrc.crc32 import iscsi
from hypothesis import given
from hypothesis import strategies as st

from storage.frame import (
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    Frame,
    MalformedError,
    SegmentHeader,
    append_record,
    decode_frame,
    decode_records,
    decode_segment_header,
    encode_length,
    encode_segment_header,
    frame_length,
    seal_frame,
)
from storage.record import RecordType, StoredRecord, record_prefix

HEADER = SegmentHeader(b"n" * 16, epoch=3, base_lsn=1000, sealed_end=None, prev_crc=7)
u64 = st.integers(0, 2**63)


def make_frame(payload: bytes = b"", *, count: int = 0, offset: int = 4096) -> bytes:
    frame = bytearray(FRAME_HEADER_BYTES) + payload
    seal_frame(
        frame,
        salt=HEADER.salt,
        offset=offset,
        count=count,
        first_lsn=1000,
        durable_upto=1000,
        prev_crc=5,
    )
    return bytes(frame)


def decode(frame: bytes, *, offset: int = 4096) -> Frame | None:
    return decode_frame(frame, 0, salt=HEADER.salt, offset=offset)


def record_bytes(body: bytes) -> bytes:
    prefix = record_prefix(RecordType.MESSAGE, "default")
    return encode_length(len(prefix) + len(body)) + prefix + body


def test_checksum_is_crc32c() -> None:
    assert iscsi(b"123456789") == 0xE3069283


def test_format_has_not_changed() -> None:
    """These bytes are on disks: another result means that old logs cannot be read."""
    assert encode_segment_header(HEADER)[:64].hex() == (
        "ff52494e474c4f47"
        "01000000" + "00000000" + "6e" * 16 + "0300000000000000"
        "e803000000000000"
        "ffffffffffffffff"
        "07000000" + "00000000"
    )
    assert make_frame(record_bytes(b'{"a":1}'), count=1).hex() == (
        "ff524c42" + "2b136c20" + "14000000" + "01000000"
        "e803000000000000"
        "e803000000000000" + "05000000"
        "10000000" + "01" + "07" + b'default{"a":1}'.hex()
    )


def test_no_client_can_write_a_magic() -> None:
    assert FRAME_MAGIC[0] == 0xFF  # never occurs in UTF-8
    with pytest.raises(UnicodeDecodeError):
        FRAME_MAGIC.decode()


@given(st.binary(min_size=16, max_size=16), u64, u64, st.none() | u64, st.integers(0, 2**32 - 1))
def test_segment_header_comes_back(
    node_id: bytes, epoch: int, base_lsn: int, sealed_end: int | None, prev_crc: int
) -> None:
    header = SegmentHeader(node_id, epoch, base_lsn, sealed_end, prev_crc)
    block = encode_segment_header(header)
    assert len(block) == SEGMENT_HEADER_BYTES
    assert decode_segment_header(block) == header


def test_any_flipped_bit_in_a_segment_header_is_noticed() -> None:
    block = bytearray(encode_segment_header(HEADER))
    for bit in range(len(block) * 8):
        block[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MalformedError, match="checksum"):
            decode_segment_header(bytes(block))
        block[bit // 8] ^= 1 << bit % 8


def test_segment_header_of_another_kind_is_refused() -> None:
    with pytest.raises(MalformedError, match="cut short"):
        decode_segment_header(encode_segment_header(HEADER)[:-1])
    for position, reason in ((0, "not a log segment"), (8, "format version 2")):
        block = bytearray(encode_segment_header(HEADER))
        block[position] ^= 3
        block[-4:] = iscsi(bytes(block[:-4])).to_bytes(4, "little")
        with pytest.raises(MalformedError, match=reason):
            decode_segment_header(bytes(block))


records = st.lists(
    st.tuples(st.integers(0, 255), st.text(max_size=20), st.binary(max_size=300)), max_size=20
)


@given(records, st.integers(0, 2**40))
def test_records_come_back(written: list[tuple[int, str, bytes]], first_lsn: int) -> None:
    frame = bytearray(FRAME_HEADER_BYTES)
    want = [
        StoredRecord(first_lsn + i, kind, workspace, body)
        for i, (kind, workspace, body) in enumerate(written)
    ]
    for record in want:
        append_record(frame, record)
    crc = seal_frame(
        frame,
        salt=1,
        offset=9,
        count=len(want),
        first_lsn=first_lsn,
        durable_upto=first_lsn,
        prev_crc=2,
    )
    got = decode_frame(b"junk" + bytes(frame) + b"more", 4, salt=1, offset=9)
    assert got is not None
    assert list(decode_records(got, {})) == want
    assert (got.crc, got.prev_crc, got.size) == (crc, 2, len(frame))
    assert got.lsn_end == first_lsn + len(want)


def test_a_record_is_encoded_as_the_hot_path_does() -> None:
    frame = bytearray()
    append_record(frame, StoredRecord(0, RecordType.MESSAGE, "default", b'{"a":1}'))
    assert bytes(frame) == record_bytes(b'{"a":1}')


def test_any_flipped_bit_makes_a_frame_invalid() -> None:
    frame = make_frame(record_bytes(b'{"a":1}'), count=1)
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(damaged)) is None, bit
        # With more bytes behind it, a longer length can be followed: it is still not valid.
        assert decode(bytes(damaged) + bytes(70_000)) is None, bit


def test_a_frame_cut_short_is_not_valid() -> None:
    frame = make_frame(record_bytes(b'{"a":1}'), count=1)
    assert decode(frame) is not None
    for size in range(len(frame)):
        assert decode(frame[:size]) is None


def test_a_frame_is_valid_only_where_it_was_written() -> None:
    frame = make_frame()
    assert decode(frame) is not None
    assert decode(frame, offset=8192) is None
    for other in (
        SegmentHeader(b"m" * 16, 3, 1000, None, 7),
        SegmentHeader(b"n" * 16, 4, 1000, None, 7),
        SegmentHeader(b"n" * 16, 3, 1001, None, 7),
    ):
        assert decode_frame(frame, 0, salt=other.salt, offset=4096) is None


def test_an_absurd_length_is_not_followed() -> None:
    frame = bytearray(make_frame())
    assert frame_length(bytes(frame), 0) == FRAME_HEADER_BYTES
    frame[8:12] = (FRAME_BYTES_MAX - FRAME_HEADER_BYTES + 1).to_bytes(4, "little")
    assert frame_length(bytes(frame), 0) is None
    assert decode(bytes(frame) + bytes(FRAME_BYTES_MAX)) is None
    assert frame_length(bytes(FRAME_HEADER_BYTES), 0) is None


@pytest.mark.parametrize(
    ("payload", "count", "reason"),
    [
        (b"\x01", 1, "cut short"),
        (b"\xff\x00\x00\x00\x01\x00", 1, "overruns"),
        (b"\x02\x00\x00\x00\x01\x09", 1, "overruns"),
        (record_bytes(b"x"), 2, "holds 1 records, not 2"),
        (record_bytes(b"x") * 2, 1, "holds 2 records, not 1"),
        (b"\x03\x00\x00\x00\x01\x01\xff", 1, "UTF-8"),
    ],
)
def test_records_that_no_writer_makes_are_refused(payload: bytes, count: int, reason: str) -> None:
    frame = decode(make_frame(payload, count=count))
    assert frame is not None
    with pytest.raises(MalformedError, match=reason):
        list(decode_records(frame, {}))
