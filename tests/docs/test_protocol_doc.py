"""docs/protocol.md against the code: what is in one of them is in the other."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import edge.errors
from edge.errors import ERRORS
from edge.http_agents import AGENTS_DEFAULT, AGENTS_PAGE_MAX
from edge.http_bodies import (
    AppendMessage,
    ChangeNode,
    ChangeSession,
    ChangeWeight,
    CreateSession,
    MarkRead,
    MintToken,
    ProblemDocument,
    Rebalance,
    RemoveNode,
)
from edge.http_dispatches import DISPATCHES_DEFAULT, DISPATCHES_PAGE_MAX
from edge.http_server import KEEP_ALIVE_REQUESTS_MAX
from edge.http_sessions import SESSIONS_DEFAULT
from edge.limits import RESERVED_DESCRIPTORS, Limits
from edge.openapi import describe
from edge.protocol import (
    REF_BYTES_MAX,
    TAIL_MAX,
    Create,
    Request,
    decode_request,
    encode_error,
    encode_hello,
)
from runtime import DEPTH_MAX, Dispatch
from runtime.catalog import MEMBERS_MAX, METADATA_BYTES_MAX
from runtime.deduplication import WINDOW
from runtime.history import PAGE_BYTES_MAX
from runtime.identifiers import IDENTIFIER_LENGTH_MAX, KIND_LENGTH_MAX
from runtime.node import ARCHIVE_WAIT_SECONDS
from tests.docs.markdown import code_blocks, headings, plain, read_page, spans, table, tables
from tests.edge.server_process import server_process, wait_until

ROOT = Path(__file__).parent.parent.parent
PAGE = read_page("protocol.md")

CONSTANTS = {
    "ref_bytes_max": REF_BYTES_MAX,
    "tail_max": TAIL_MAX,
    "depth_max": DEPTH_MAX,
    "name_characters_max": IDENTIFIER_LENGTH_MAX,
    "kind_characters_max": KIND_LENGTH_MAX,
    "members_max": MEMBERS_MAX,
    "metadata_bytes_max": METADATA_BYTES_MAX,
    "client_ids_remembered": WINDOW,
    "sessions_default": SESSIONS_DEFAULT,
    "agents_default": AGENTS_DEFAULT,
    "agents_page_max": AGENTS_PAGE_MAX,
    "dispatches_default": DISPATCHES_DEFAULT,
    "dispatches_page_max": DISPATCHES_PAGE_MAX,
    "page_bytes_max": PAGE_BYTES_MAX,
    "list_wait_seconds": ARCHIVE_WAIT_SECONDS,
    "requests_per_connection_max": KEEP_ALIVE_REQUESTS_MAX,
}

# 1000 answers the client's own; 1006 is what a client sees where no close frame came, and nobody may send it.
CLOSE_CODES_SEEN = {1000, 1006}

REQUESTS: dict[str, Any] = {str(kind.__struct_config__.tag): kind for kind in get_args(Request)}


def types_written() -> set[str]:
    """Every type of frame that the server's sources can write."""
    names = ("edge/protocol.py", "edge/client.py", "runtime/codec.py", "storage/losses.py")
    sources = [ROOT / name for name in names]
    found = (re.findall(r'"type": ?"([a-z_]+)"', source.read_text()) for source in sources)
    return {name for names in found for name in names} | {str(Dispatch.__struct_config__.tag)}


def test_every_code_is_in_the_table_with_its_status_close_code_and_retry_time() -> None:
    errors = table(PAGE, "Errors", "code")
    documented = {
        plain(row["code"]): (row["HTTP"], row["close"], row["retry"]) for row in errors.rows
    }
    actual = {
        code: (str(kind.status), str(kind.close_code or ""), str(kind.retry_after_ms or ""))
        for code, kind in ERRORS.items()
    }

    assert documented == actual
    assert all(row["when"] for row in errors.rows)


def test_every_close_code_says_what_a_client_should_do() -> None:
    closing = table(PAGE, "Closing", "close code")
    actual = {value for name, value in vars(edge.errors).items() if name.startswith("CLOSE_")}
    documented = {int(row["close code"]): row for row in closing.rows}

    assert set(documented) == actual | CLOSE_CODES_SEEN
    assert all(row["what a client should do"] for row in closing.rows)
    for code, kind in ERRORS.items():
        if kind.close_code is not None and code not in {"unauthorized", "too_many_connections"}:
            named = spans(documented[kind.close_code]["sent when"])
            assert code in named or code in {"log_poisoned", "fenced"}, code


def test_codes_that_are_named_in_the_text_exist() -> None:
    refusals = table(PAGE, "Handshake", "status")
    for row in refusals.rows:
        assert {str(ERRORS[code].status) for code in spans(row["code"])} == {row["status"]}


def test_every_limit_is_in_the_table_with_its_value() -> None:
    limits = table(PAGE, "Limits", "limit")
    documented = {plain(row["limit"]): float(row["value"]) for row in limits.rows}
    actual = {each.name: getattr(Limits(), each.name) for each in fields(Limits)} | CONSTANTS

    assert documented == actual


def test_limits_in_the_text_are_those_of_the_code() -> None:
    limits = Limits()
    for text in (
        f"at most {MEMBERS_MAX:,}",
        f"at most {METADATA_BYTES_MAX:,} bytes",
        f"nested at most {DEPTH_MAX} deep",
        f"at most {KIND_LENGTH_MAX} characters",
        f"at most {limits.message_bytes_max:,} bytes",
        f"integer 0 to {TAIL_MAX:,}",
        f"1 to {limits.token_ttl_seconds_max:,} | {limits.token_ttl_seconds_default:,}",
        f"at most {limits.token_sessions_max}",
        f"1 to {limits.page_rows_max:,} | {limits.page_rows_default}",
        f"1 to {limits.page_rows_max:,} | {SESSIONS_DEFAULT}",
        f"After {limits.idle_timeout_seconds:.0f} seconds of silence",
        f"takes nothing for {limits.stall_timeout_seconds:.0f} seconds",
        f"open files less {RESERVED_DESCRIPTORS}:",
        f"comes every {limits.sse_keep_alive_seconds:.0f} seconds",
    ):
        assert text in PAGE, text


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_every_request_is_described_with_all_its_fields(name: str) -> None:
    kind = REQUESTS[name]
    expected = [each for each in kind.__struct_fields__ if each != "ref"]
    found = [each for each in tables(PAGE) if each.heading == name and each.columns[0] == "field"]
    documented = found[0].column("field") if found else []

    assert sorted(documented) == sorted(expected)
    required = {each.name for each in msgspec.structs.fields(kind) if each.required}
    if documented:
        # A join needs a session or an inbox, which its struct cannot say.
        stated = {plain(row["field"]) for row in found[0].rows if row["default"] == "required"}
        assert stated - {"session"} == required - {"session"}


def test_what_a_join_may_create_is_described_with_all_its_fields() -> None:
    documented = table(PAGE, "join", "field of `create`").column("field of `create`")

    assert documented == list(Create.__struct_fields__)


def test_every_type_of_frame_has_a_heading_and_none_has_one_that_is_not_there() -> None:
    frames = set(REQUESTS) | types_written()
    start, end = headings(PAGE).index("Requests"), headings(PAGE).index("Order")

    assert set(headings(PAGE)[start + 1 : end]) - {"Answers"} == frames


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("hello", encode_hello("alice", "default", "local", Limits())),
        (
            "error",
            encode_error(
                edge.errors.Problem("conflict", "m", "h", 1, {"head_seq": 1}), session="s"
            ),
        ),
    ],
)
def test_what_the_server_writes_has_the_fields_that_are_described(name: str, frame: bytes) -> None:
    assert sorted(table(PAGE, name, "field").column("field")) == sorted(
        set(json.loads(frame)) - {"type"}
    )


def test_the_limits_in_hello_are_all_named() -> None:
    hello = json.loads(encode_hello("alice", "default", "local", Limits()))
    (row,) = (row for row in table(PAGE, "hello", "field").rows if plain(row["field"]) == "limits")

    assert spans(row["meaning"]) == list(hello["limits"])


def examples() -> Iterator[tuple[str, str]]:
    for block in code_blocks(PAGE):
        for line in block.splitlines():
            if line.startswith(("→ ", "← ")):
                yield line[0], line[2:]


def test_every_request_in_the_examples_is_one_that_the_server_takes() -> None:
    requests = [text for arrow, text in examples() if arrow == "→"]

    assert requests
    for text in requests:
        decode_request(text.encode())


def test_every_answer_in_the_examples_has_the_fields_that_are_described() -> None:
    answers = [json.loads(text) for arrow, text in examples() if arrow == "←"]

    for answer in answers:
        described = set(table(PAGE, answer["type"], "field").column("field"))
        assert set(answer) - {"type"} <= described
        if answer["type"] != "error":
            assert set(answer) - {"type"} == described
    assert {answer["type"] for answer in answers} == types_written()


def test_every_route_is_in_the_table_and_none_that_is_not_there() -> None:
    paths = json.loads(describe())["paths"]
    actual = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    routes = table(PAGE, "HTTP", "route")

    documented = [route for row in routes.rows for route in spans(row["route"])]
    assert sorted(documented) == sorted(actual)
    for row in routes.rows:
        built = "not built yet" not in row[""]
        for route in spans(row["route"]):
            method, path = route.split(" ")
            answers = set(paths[path][method.lower()]["responses"]) - {"default"}
            assert answers == (set(row["answers"].replace(" ", "").split(",")) - {"", "503"}), route
            assert bool(answers) == built


@pytest.mark.parametrize(
    ("start", "body"),
    [
        ("**`POST /v1/sessions`**", CreateSession),
        ("**`PATCH /v1/sessions/{session}`**", ChangeSession),
        ("**`POST /v1/sessions/{session}/read`**", MarkRead),
        ("**`POST /v1/sessions/{session}/messages`**", AppendMessage),
        ("**`POST /v1/tokens`**", MintToken),
        ("**`POST /v1/ring/join`**", ChangeNode),
        ("**`POST /v1/ring/weight`**", ChangeWeight),
        ("**`POST /v1/ring/remove`**", RemoveNode),
        ("**`POST /v1/ring/rebalance`**", Rebalance),
        ("A `code` is the same", ProblemDocument),
    ],
)
def test_every_body_is_described_with_all_its_fields(start: str, body: Any) -> None:
    (place,) = re.finditer("^" + re.escape(start), PAGE, re.MULTILINE)
    first = tables(PAGE[place.start() :])[0]

    assert sorted(first.column("field")) == sorted(body.__struct_fields__)


def test_the_client_in_the_text_survives_a_server_that_is_killed(tmp_path: Path) -> None:
    """Everything it sends arrives once and in order, though the server is killed half-way."""
    (source,) = code_blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(source, names)
    seen: list[dict[str, Any]] = []
    with server_process(tmp_path / "data") as first:
        address = first.wait_ready().address
        client = names["Client"](f"{first.socket_url}?user_id=alice", "general", seen.append)
        done = threading.Event()
        thread = threading.Thread(target=client.run, args=(done.is_set,), daemon=True)
        thread.start()
        try:
            sent = [client.send({"n": n}) for n in range(50)]
            wait_until(lambda: len(seen) >= 25, 20)
            first.kill()
            sent += [client.send({"n": n}) for n in range(50, 100)]
            with server_process(tmp_path / "data", f"--listen={address}") as second:
                second.wait_ready()
                wait_until(lambda: len(seen) >= 100 and not client.outbox, 30)
        finally:
            done.set()
            thread.join(10)

    assert [message["client_id"] for message in seen] == sent
    assert [message["seq"] for message in seen] == list(range(1, 101))
