import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError
from edge.protocol import (
    Join,
    Send,
    clean_content,
    decode_request,
    encode_refusal,
    find_ref,
)
from runtime import DEPTH_MAX, depth_of


def refusal(data: bytes) -> EdgeError:
    with pytest.raises(EdgeError) as refused:
        decode_request(data)
    return refused.value


def test_a_send_keeps_the_clients_own_bytes() -> None:
    request = decode_request(
        b'{"type":"send","ref":"2","session":"s1","client_id":"c-1",'
        b'"content":{ "n" : 1e999, "a":1, "a":2 },"metadata":[ ]}'
    )
    assert isinstance(request, Send)
    assert bytes(request.content) == b'{ "n" : 1e999, "a":1, "a":2 }'
    assert bytes(request.metadata) == b"[ ]"
    assert bytes(request.ref) == b'"2"'


def test_a_join_may_create() -> None:
    request = decode_request(b'{"type":"join","ref":1,"session":"s","last_seq":0,"create":{}}')
    assert isinstance(request, Join)
    assert request.create is not None


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"", "bad_json", None),
        (b"{", "bad_json", None),
        (b'{"type":"ping"} x', "bad_json", None),
        (b'{"type":"send","session":"s","content":NaN}', "bad_json", None),
        (b'{"type":"send","session":"s","content":[1,]}', "bad_json", None),
        (b'{"type":"send","session":"s","content":01}', "bad_json", None),
        (b'{"type":"send","session":"s","content":"a\nb"}', "bad_json", None),
        (b'{"type":"send","session":"s","content":"\xff"}', "bad_utf8", None),
        (b'{"type":"send","session":"s","content":"\xed\xa0\x80"}', "bad_utf8", None),
        (b'{"type":"send","session":"s","content":"\\ud800"}', "lone_surrogate", None),
        (b'{"type":"send","session":"s","content":"\\udc00x"}', "lone_surrogate", None),
        (b'{"type":"send","session":"s","content":"\\ud83d\\u0041"}', "lone_surrogate", None),
        (b"[]", "invalid_field", ""),
        (b'{"type":"nope"}', "unknown_type", "type"),
        (b'{"type":7}', "unknown_type", "type"),
        (b"{}", "missing_field", "type"),
        (b'{"type":"send","session":"s"}', "missing_field", "content"),
        (b'{"type":"send","session":"s","content":1,"foo":2}', "unknown_field", "foo"),
        (b'{"type":"send","session":5,"content":1}', "invalid_field", "session"),
        (b'{"type":"send","session":"","content":1}', "invalid_field", "session"),
        (b'{"type":"read","session":"s","seq":-1}', "invalid_field", "seq"),
        (b'{"type":"join","session":"s","tail":1001}', "invalid_field", "tail"),
        (b'{"type":"join","session":"s","create":{"x":1}}', "unknown_field", "x"),
        (b'{"type":"ping","ref":{"a":1}}', "invalid_field", "ref"),
        (b'{"type":"ping","ref":"' + b"x" * 200 + b'"}', "invalid_field", "ref"),
    ],
)
def test_bad_frames_are_refused_by_code_and_field(
    data: bytes, code: str, field: str | None
) -> None:
    error = refusal(data)
    assert error.code == code
    assert error.details.get("field") == field
    assert error.hint


def test_a_nesting_bomb_is_refused_by_depth() -> None:
    bomb = b'{"type":"send","session":"s","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert refusal(bomb).code == "too_deep"


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
)
def test_no_bytes_raise_anything_but_an_edge_error(data: bytes) -> None:
    try:
        decode_request(data)
    except EdgeError as error:
        json.loads(encode_refusal(error, find_ref(data)))


@pytest.mark.parametrize("ref", [b'"a"', b"7", b"-1.5", b"2.50e+3", b"null", b"1" * 128])
def test_a_ref_is_a_string_or_any_number_and_kept_as_it_is_written(ref: bytes) -> None:
    assert bytes(decode_request(b'{"type":"ping","ref":%b}' % ref).ref) == ref


@pytest.mark.parametrize("ref", [b"true", b"[1]", b"{}", b"1" * 129])
def test_a_ref_of_another_type_or_too_long_is_refused_as_documented(ref: bytes) -> None:
    error = refusal(b'{"type":"ping","ref":%b}' % ref)
    assert (error.code, error.details) == ("invalid_field", {"field": "ref"})
    assert "a string or a number" in error.message


def test_the_ref_of_a_bad_frame_is_found_where_it_can_be() -> None:
    assert find_ref(b'{"type":"nope","ref":"9"}') == b'"9"'
    assert find_ref(b'{"ref":') == b"null"
    assert find_ref(b'{"ref":[1]}') == b"null"


@pytest.mark.parametrize(
    ("data", "ref"),
    [
        (b'{"type":"send","ref":"9","session":"s","content":NaN}', b'"9"'),
        (b' { "ref" : -7 , "type":"send","content":{"a":"\\ud800"}}', b"-7"),
        (b'{"ref":-1.50e+3,"content":NaN}', b"-1.50e+3"),
        (b'{"type":"send","content":-Infinity,"ref":"9"}', b'"9"'),
        (b'{"type":"send","content":"\\ud800 \\" ,\\"refs","ref":"9"}', b'"9"'),
        # It may not be a part of the content, and not be one of two.
        (b'{"type":"send","content":{"ref":"9"},"a":NaN}', b"null"),
        (b'{"type":"send","content":[NaN],"ref":"9"}', b"null"),
        (b'{"type":"send","content":"\\ud800\\",\\"ref\\":1,"}', b"null"),
        (b'{"ref":"9","content":NaN,"ref":"8"}', b"null"),
        (b'{"ref":"9","content":{"ref":NaN}}', b"null"),
        (b'[{"ref":"9","content":NaN}]', b"null"),
        (b'{"ref":"\\ud800","content":NaN}', b"null"),
        (b'{"ref":"\xff","content":NaN}', b"null"),
        (b'{"ref":01,"content":NaN}', b"null"),
        (b'{"ref":"' + b"9" * 200 + b'","content":NaN}', b"null"),
    ],
)
def test_the_ref_of_what_is_no_json_is_found_before_anything_nested(
    data: bytes, ref: bytes
) -> None:
    assert find_ref(data) == ref


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":"' + b"\\\\" * 120_000,
        b'{"a":' * 50_000,
        b'{"a":1,' + b'"a":1,' * 40_000 + b"x",
        b"{" + b" " * 250_000,
        b'{"a":1 ' + b" " * 250_000,
        b'"ref"' * 50_000,
    ],
)
def test_looking_for_a_ref_takes_no_longer_than_the_frame_is_long(data: bytes) -> None:
    began = time.process_time()
    assert find_ref(data) == b"null"
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("depth", [1, DEPTH_MAX])
def test_legal_depth_is_kept_byte_for_byte(depth: int) -> None:
    content = b'{"a":[' * (depth // 2) + b"1" + b"]}" * (depth // 2)
    assert clean_content(content) == content


def test_what_is_as_deep_as_allowed_may_be_as_wide_as_it_likes() -> None:
    content = b"[" * (DEPTH_MAX - 1) + b"[],[]" + b"]" * (DEPTH_MAX - 1)
    assert clean_content(content) == content


def test_one_level_too_deep_is_refused() -> None:
    with pytest.raises(EdgeError) as refused:
        clean_content(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))
    assert refused.value.code == "too_deep"


def test_brackets_in_strings_are_not_depth() -> None:
    content = b'["' + b"[{" * 500 + b'\\"[[" ]'
    assert depth_of(content) == 1
    assert clean_content(content) == content


def test_raw_line_breaks_become_spaces_and_nothing_else_changes() -> None:
    assert clean_content(b'{\r\n\t"a" :\n"\\n"}') == b'{  \t"a" : "\\n"}'


@pytest.mark.parametrize("line_break", [b"\n", b"\r", b"\r\n"])
def test_each_kind_of_raw_line_break_is_found_by_itself(line_break: bytes) -> None:
    assert clean_content(b"[1," + line_break + b"2]") == b"[1," + b" " * len(line_break) + b"2]"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@given(_json, st.sampled_from([None, 1]))
def test_cleaned_content_means_the_same_on_one_line(value: object, indent: int | None) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    cleaned = clean_content(raw)
    assert json.loads(cleaned) == value
    assert b"\n" not in cleaned
    assert len(cleaned) == len(raw)
