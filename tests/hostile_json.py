"""JSON that breaks programs: what must be kept byte for byte, and what must be refused."""

import json
from pathlib import Path

DATA = Path(__file__).parent / "data"
DEPTH_MAX = 128

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")

LEGAL = {
    "NUL": rb'"\u0000"',
    "NUL in a key": rb'{"a\u0000b":"\u0000\u0000"}',
    "every escaped control character": json.dumps("".join(map(chr, range(0x20)))).encode(),
    "every escape": rb'"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"',
    "escapes in both cases": rb'"\u00E9\u00e9\ud83d\ude00\uD83D\uDE00"',
    "DEL": b'"\x7f"',
    "400 digits": b"9" * 400,
    "minus 400 digits": b"-" + b"9" * 400,
    "400 digits after the point": b"0." + b"3" * 400,
    "5,000 digits": b"[" + b"7" * 5_000 + b"]",
    "1e999": b"1e999",
    "-1E+999": b"-1E+999",
    "1e-999": b"1e-999",
    "an exponent of 400 digits": b"1e" + b"9" * 400,
    "minus zero": b"-0",
    "minus zero with a fraction": b"-0.0e-0",
    "2^53 + 1": b"9007199254740993",
    "2^64": b"18446744073709551616",
    "a number as nobody writes it": b"1.00000E+0002",
    "duplicate keys": b'{"a":1,"a":2,"a":{"a":3,"a":4}}',
    "empty keys": b'{"":{"":""},"":""}',
    "odd spaces": b'{ "a"\t: [ 1 ,2,\t3 ] , "b" :null }',
    "raw line breaks": b'{\r\n\t"a" :\n[\r1\n,\n2]\n}',
    "line separators": "\"\u2028\u2029\u0085\"".encode(),
    "not characters": '"\ufffe\uffff\U0001fffe\U0010ffff\ufeff"'.encode(),
    "zero width and direction": '"\u200b\u200d\u202e\u2066\ufeff"'.encode(),
    "what SSE would end on": rb'"data: x\n\nevent: error\r\rid: 9"',
    "what SQL would end on": rb'''"'; DROP TABLE messages; --\\. \\N $$ %s :a ?1"''',
    "what COPY would end on": rb'"\\.\t\\t\\\\ \\x00 \u0008"',
    "what JSON would end on": rb'"\"}],\"type\":\"message\",\"seq\":99"',
    "legal depth in arrays": b"[" * DEPTH_MAX + b"]" * DEPTH_MAX,
    "legal depth in objects": b'{"a":' * (DEPTH_MAX - 1) + b"{}" + b"}" * (DEPTH_MAX - 1),
    "brackets in a string": b'"' + b"[{" * 2_000 + b'"',
    "a long string": b'"' + "é".encode() * 50_000 + b'"',
    "scalars": b"[true,false,null,0,\"\"]",
    "true": b"true",
    "null": b"null",
    "an empty string": b'""',
    "an empty array": b"[]",
    "an empty object": b"{}",
}  # fmt: skip


def naughty_strings() -> list[str]:
    """The Big List of Naughty Strings."""
    strings: list[str] = json.loads((DATA / "blns.json").read_text())
    return strings


def naughty_documents() -> list[bytes]:
    """Each naughty string as a document: as it is, and escaped."""
    return [
        json.dumps({"text": text}, ensure_ascii=escaped).encode()
        for text in naughty_strings()
        for escaped in (False, True)
    ]


def suite(letter: str) -> dict[str, bytes]:
    """Part of JSONTestSuite: `y` must be taken, `n` must be refused, `i` may be either."""
    documents: dict[str, str] = json.loads((DATA / "json_test_suite.json").read_text())
    found = {
        name: text.encode("latin-1")
        for name, text in documents.items()
        if name.startswith(f"{letter}_")
    }
    if letter == "n":
        found["n_structure_100000_opening_arrays"] = b"[" * 100_000
        found["n_structure_open_array_object"] = b'[{"":' * 50_000 + b"\n"
    return found


def legal_documents() -> list[bytes]:
    """Every document that must be kept."""
    return [*LEGAL.values(), *suite("y").values()]


def as_stored(document: bytes) -> bytes:
    """A legal document as every reader gets it back: on one line, without space around it."""
    return document.strip(b" \t\r\n").translate(_LINE_BREAKS)
