"""What comes of an agent's bytes, right and wrong, however they are cut."""

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.answer import AnswerLimits, AnswerParser, Chunk, Piece, Said
from agents.answererror import AnswerError

EVENTS = "text/event-stream; charset=utf-8"


def parser(**changes: Any) -> AnswerParser:
    numbers = count(1)
    return AnswerParser(lambda: f"m-{next(numbers)}", **changes)


def read(data: bytes, made: AnswerParser | None = None, size: int = 1 << 20) -> list[Piece]:
    made = made or parser()
    pieces: list[Piece] = []
    for start in range(0, len(data), size):
        pieces += made.feed(data[start : start + size])
    pieces += made.end()
    return pieces


def fail(data: bytes, made: AnswerParser | None = None) -> tuple[AnswerError, list[Piece]]:
    made = made or parser()
    pieces: list[Piece] = []
    with pytest.raises(AnswerError) as failed:
        pieces.extend(made.feed(data))
        pieces.extend(made.end())
    return failed.value, pieces


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def chunk(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind} | fields


def text(*deltas: str) -> list[dict[str, Any]]:
    return [
        chunk("text-start", id="t"),
        *(chunk("text-delta", id="t", delta=delta) for delta in deltas),
        chunk("text-end", id="t"),
    ]


HELLO = lines(chunk("start", messageId="m"), *text("Hel", "lo"), chunk("finish"))


def said(pieces: list[Piece]) -> list[Said]:
    return [piece for piece in pieces if isinstance(piece, Said)]


def content(pieces: list[Piece]) -> Any:
    (message,) = said(pieces)
    return json.loads(message.content)


def test_chunks_are_shown_as_they_came_and_assembled_into_one_message() -> None:
    pieces = read(HELLO)
    shown = [piece.data for piece in pieces if isinstance(piece, Chunk)]
    assert b"".join(data + b"\n" for data in shown) == HELLO
    assert isinstance(pieces[-1], Said)
    assert pieces[-1].kind == "assistant"
    assert json.loads(pieces[-1].metadata) == {"termination": "finish"}
    assert content(pieces) == {
        "id": "m",
        "role": "assistant",
        "parts": [{"type": "text", "text": "Hello", "state": "done"}],
    }


def test_a_line_with_a_kind_is_a_message_and_its_bytes_stay() -> None:
    data = b'{"kind":"text","content":{ "n" : 1e999, "a":1, "a":2 },"metadata":{"x": [1]}}\n'
    (piece,) = read(data)
    assert piece == Said("text", b'{ "n" : 1e999, "a":1, "a":2 }', b'{"x": [1]}')
    assert read(b'{"kind":"text","content":1}\n{"content":[],"kind":"k","metadata":null}') == [
        Said("text", b"1", b"{}"),
        Said("k", b"[]", b"{}"),
    ]


def test_an_event_stream_holds_the_same_chunks() -> None:
    events = b": hello\nretry: 5\n\n" + b"".join(
        b"event: x\r\nid: 1\r\ndata: " + line + b"\r\n\r\n" for line in HELLO.splitlines()
    )
    pieces = read(
        events + b"data: [DONE]\n\ndata: what comes after does not count\n\n",
        parser(content_type=EVENTS),
    )
    assert pieces == read(HELLO)


def test_an_id_is_made_where_the_agent_names_none_and_a_start_where_it_sends_none() -> None:
    pieces = read(
        lines(chunk("start", foo=[1]), *text("a"), chunk("finish"), *text("b"), chunk("finish"))
    )
    starts = [
        json.loads(piece.data)
        for piece in pieces
        if isinstance(piece, Chunk) and b'"start"' in piece.data
    ]
    assert starts == [
        {"type": "start", "foo": [1], "messageId": "m-1"},
        {"type": "start", "messageId": "m-2"},
    ]
    assert [json.loads(each.content)["id"] for each in said(pieces)] == ["m-1", "m-2"]


def test_every_kind_of_part_is_assembled() -> None:
    pieces = read(
        lines(
            chunk("start", messageId="m", messageMetadata={"model": "x", "n": 1}),
            chunk("start-step"),
            chunk("reasoning-start", id="r"),
            chunk("reasoning-delta", id="r", delta="hm"),
            chunk("reasoning-end", id="r", providerMetadata={"p": 1}),
            chunk("tool-input-start", toolCallId="c", toolName="add"),
            chunk("tool-input-delta", toolCallId="c", inputTextDelta='{"a"'),
            chunk("tool-input-available", toolCallId="c", toolName="add", input={"a": 1}),
            chunk("tool-approval-request", approvalId="ok", toolCallId="c"),
            chunk("tool-output-available", toolCallId="c", output=3),
            chunk("tool-input-available", toolCallId="d", toolName="f", input=1, dynamic=True),
            chunk("tool-output-error", toolCallId="d", errorText="no"),
            chunk("data-weather", id="w", data={"t": 1}),
            chunk("data-weather", id="w", data={"t": 2}),
            chunk("data-note", data="x", transient=True),
            chunk("source-url", sourceId="s", url="https://e.org"),
            chunk("source-document", sourceId="s2", mediaType="a/b", title="T"),
            chunk("file", url="data:,x", mediaType="text/plain"),
            chunk("message-metadata", messageMetadata={"n": 2}),
            chunk("finish-step"),
            chunk("finish", messageMetadata={"z": None}),
        )
    )
    assert content(pieces)["parts"] == [
        {"type": "step-start"},
        {"type": "reasoning", "text": "hm", "state": "done", "providerMetadata": {"p": 1}},
        {
            "type": "tool-add",
            "toolCallId": "c",
            "state": "output-available",
            "input": {"a": 1},
            "approval": {"id": "ok"},
            "output": 3,
        },
        {
            "type": "dynamic-tool",
            "toolName": "f",
            "toolCallId": "d",
            "state": "output-error",
            "input": 1,
            "errorText": "no",
        },
        {"type": "data-weather", "id": "w", "data": {"t": 2}},
        {"type": "source-url", "sourceId": "s", "url": "https://e.org"},
        {"type": "source-document", "sourceId": "s2", "mediaType": "a/b", "title": "T"},
        {"type": "file", "mediaType": "text/plain", "url": "data:,x"},
    ]
    assert json.loads(said(pieces)[0].metadata) == {
        "model": "x",
        "n": 2,
        "z": None,
        "termination": "finish",
    }


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"<html><body>502 Bad Gateway</body></html>", "answer_bad_json"),
        (b'{"type":"text-start"', "answer_bad_json"),
        (b'{"type":"text-start","id":"\xff"}', "answer_bad_utf8"),
        (b'{"type":"text-delta","id":"t","delta":"\\ud800"}', "answer_bad_json"),
        (b'{"type":"data-x","data":' + b"[" * 200 + b"]" * 200 + b"}", "answer_too_deep"),
        (b'{"type":"data-x","data":' + b"[" * 100_000, "answer_too_deep"),
        (b"[1]", "answer_bad_chunk"),
        (b'"x"', "answer_bad_chunk"),
        (b"{}", "answer_bad_chunk"),
        (b'{"kind":"text"}', "answer_bad_chunk"),
        (b'{"kind":"a b","content":1}', "answer_bad_chunk"),
        (b'{"kind":5,"content":1}', "answer_bad_chunk"),
        (b'{"type":"nonsense"}', "answer_bad_chunk"),
        (b'{"type":"data-"}', "answer_bad_chunk"),
        (b'{"type":"data-x"}', "answer_bad_chunk"),
        (b'{"type":5}', "answer_bad_chunk"),
        (b'{"type":"text-delta","id":"t"}', "answer_bad_chunk"),
        (b'{"type":"text-delta","id":7,"delta":"x"}', "answer_bad_chunk"),
        (b'{"type":"message-metadata","messageMetadata":[1]}', "answer_bad_chunk"),
        (b'{"type":"text-delta","id":"u","delta":"x"}', "answer_out_of_order"),
        (b'{"type":"text-start","id":"t"}', "answer_out_of_order"),
        (b'{"type":"text-end","id":"u"}', "answer_out_of_order"),
        (b'{"type":"reasoning-delta","id":"t","delta":"x"}', "answer_out_of_order"),
        (b'{"type":"start"}', "answer_out_of_order"),
        (b'{"kind":"text","content":1}', "answer_out_of_order"),
        (
            b'{"type":"tool-input-delta","toolCallId":"c","inputTextDelta":"x"}',
            "answer_out_of_order",
        ),
        (b'{"type":"tool-output-available","toolCallId":"c","output":1}', "answer_out_of_order"),
        (b'{"type":"tool-output-denied","toolCallId":"c"}', "answer_out_of_order"),
        (b'{"type":"error","errorText":"the model is away"}', "answer_error"),
    ],
)
def test_a_bad_line_is_named_and_what_came_before_it_stays(bad: bytes, code: str) -> None:
    before = lines(
        chunk("start", messageId="m"),
        chunk("text-start", id="t"),
        chunk("text-delta", id="t", delta="Hel"),
    )
    made = parser()
    error, pieces = fail(before + bad + b"\n" + HELLO, made)
    assert (error.code, error.line) == (code, 4)
    assert str(error).startswith("line 4: ")
    assert len(pieces) == 3
    partial = made.partial("interrupted")
    assert partial is not None
    assert json.loads(partial.content)["parts"] == [
        {"type": "text", "text": "Hel", "state": "done"}
    ]
    assert json.loads(partial.metadata) == {"termination": "interrupted"}
    assert made.partial("interrupted") is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "answer_empty"),
        (b"\n\n \n", "answer_empty"),
        (b'{"type":"start"}\n', "answer_truncated"),
        (HELLO[: HELLO.rindex(b"{")], "answer_truncated"),
        (HELLO[:-5], "answer_bad_json"),
        (b'{"type":"finish"}\n', "answer_out_of_order"),
    ],
)
def test_an_answer_that_just_ends_is_not_taken_for_whole(data: bytes, code: str) -> None:
    assert fail(data)[0].code == code


def test_an_abort_keeps_what_had_come() -> None:
    pieces = read(lines(chunk("start", messageId="m"), *text("so far"), chunk("abort")))
    assert json.loads(said(pieces)[0].metadata) == {"termination": "abort"}


@pytest.mark.parametrize(
    ("limits", "data", "code"),
    [
        (AnswerLimits(line_bytes_max=1_000), b"x" * 1_001, "answer_line_too_long"),
        (AnswerLimits(answer_bytes_max=1_000), b"\n" * 1_001, "answer_too_large"),
        (AnswerLimits(chunks_max=6), lines(chunk("start"), *text(*"abcd")), "answer_too_large"),
        (
            AnswerLimits(messages_max=2),
            lines(*[{"kind": "k", "content": 1}] * 3),
            "answer_too_large",
        ),
        (
            AnswerLimits(message_bytes_max=1_000),
            lines(chunk("start"), *text("x" * 999), chunk("finish")),
            "answer_too_large",
        ),
        (
            AnswerLimits(message_bytes_max=1_000),
            lines(chunk("start"), *text(*["x" * 900] * 6)),
            "answer_too_large",
        ),
    ],
)
def test_everything_has_a_limit(limits: AnswerLimits, data: bytes, code: str) -> None:
    assert fail(data, parser(limits=limits))[0].code == code


def test_a_gigabyte_without_a_line_break_is_refused_before_it_is_held() -> None:
    made, fed = parser(), 0
    with pytest.raises(AnswerError) as failed:
        while fed < 1 << 30:
            list(made.feed(b"x" * 65_536))
            fed += 65_536
    assert failed.value.code == "answer_line_too_long"
    assert fed <= 262_144


def test_many_open_parts_cost_no_more_than_their_number() -> None:
    many = [chunk("text-start", id=str(n)) for n in range(20_000)]
    pieces = read(
        lines(chunk("start"), *many, chunk("finish")),
        parser(limits=AnswerLimits(message_bytes_max=1 << 22)),
    )
    assert len(content(pieces)["parts"]) == 20_000


EXAMPLES = (
    HELLO,
    b'{"kind":"text","content":"a"}\r\n\r\n{"kind":"text","content":"b"}',
    b"\xef\xbb\xbf" + HELLO,
    HELLO + HELLO[:20],
    b"data: {}\n",
)


@given(st.sampled_from(EXAMPLES), st.integers(1, 40), st.sampled_from(["", EVENTS]))
def test_pieces_are_the_same_however_the_bytes_are_cut(
    data: bytes, size: int, content_type: str
) -> None:
    def outcome(size: int) -> Any:
        made = parser(content_type=content_type)
        pieces: list[Piece] = []
        try:
            for start in range(0, len(data), size):
                pieces.extend(made.feed(data[start : start + size]))
            pieces.extend(made.end())
        except AnswerError as error:
            return pieces, error.code, error.line, made.partial("x")
        return pieces, made.partial("x")

    assert outcome(size) == outcome(1 << 20)


_CHUNKS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(HELLO.splitlines()),
    st.builds(
        lambda kind, call: json.dumps(
            chunk(
                kind,
                id=call,
                toolCallId=call,
                toolName="f",
                input=1,
                output=2,
                delta="x",
                inputTextDelta="y",
                errorText="e",
                approvalId="a",
                data=1,
                url="u",
                mediaType="m",
                sourceId="s",
                title="t",
            )
        ).encode(),
        st.sampled_from(
            [
                "start",
                "finish",
                "abort",
                "text-start",
                "text-delta",
                "text-end",
                "tool-input-start",
                "tool-input-delta",
                "tool-input-available",
                "tool-output-available",
                "tool-output-error",
                "tool-approval-request",
                "data-x",
                "file",
                "start-step",
                "finish-step",
            ]
        ),
        st.sampled_from("ab"),
    ),
)


@given(st.lists(_CHUNKS, max_size=30), st.booleans(), st.sampled_from(["", EVENTS]))
def test_no_bytes_raise_anything_but_an_answer_error(
    parts: list[bytes], openai: bool, content_type: str
) -> None:
    made = parser(openai=openai, content_type=content_type)
    prefix = b"data: " if openai or content_type else b""
    try:
        for part in parts:
            for piece in made.feed(prefix + part + b"\n"):
                if isinstance(piece, Chunk):
                    assert b"\n" not in piece.data
                    json.loads(piece.data)
                else:
                    assert b"\n" not in piece.content + piece.metadata
                    json.loads(piece.content)
        list(made.end())
    except AnswerError:
        pass
    partial = made.partial("x")
    assert partial is None or json.loads(partial.content)["role"] == "assistant"


def completion(*deltas: Any, finish: str | None = "stop") -> bytes:
    events: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish is not None:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events.append({"choices": [], "usage": {"total_tokens": 3}})
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def test_a_streamed_completion_becomes_a_message() -> None:
    data = completion(
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "Hel"},
        {"content": "lo"},
    )
    pieces = read(data + b"data: [DONE]\n\n", parser(openai=True))
    types = [json.loads(piece.data)["type"] for piece in pieces if isinstance(piece, Chunk)]
    assert types == [
        "start", "reasoning-start", "reasoning-delta", "reasoning-end", "text-start", "text-delta", "text-delta",
        "text-end", "finish",
    ]  # fmt: skip
    assert content(pieces)["parts"] == [
        {"type": "reasoning", "text": "hm", "state": "done"},
        {"type": "text", "text": "Hello", "state": "done"},
    ]


def test_tool_calls_of_a_completion_become_parts() -> None:
    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments} | more}

    data = completion(
        {"tool_calls": [{"id": "c1"} | call(0, "", name="add")]},
        {"tool_calls": [call(0, '{"a":')]},
        {"tool_calls": [call(0, "1}"), {"id": "c2"} | call(1, "broken", name="f")]},
        finish="tool_calls",
    )
    parts = content(read(data, parser(openai=True)))["parts"]
    assert [(part["type"], part["state"], part["input"]) for part in parts] == [
        ("tool-add", "input-available", {"a": 1}),
        ("tool-f", "output-error", "broken"),
    ]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (completion({"content": "x"}, finish=None), "answer_truncated"),
        (b'data: {"error":{"message":"quota"}}\n\n', "answer_error"),
        (b"data: nonsense\n\n", "answer_bad_json"),
        (b'data: {"choices":5}\n\n', "answer_bad_chunk"),
        (b"<html>", "answer_empty"),
    ],
)
def test_a_completion_that_breaks_is_told(data: bytes, code: str) -> None:
    assert fail(data, parser(openai=True))[0].code == code
