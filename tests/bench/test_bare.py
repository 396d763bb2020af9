"""The yardstick does what it says: another library can talk to it, and an ack comes after the write."""

import json
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from bench.bare import FILE_BYTES
from bench.child import ChildError, open_child
from bench.measurement import open_bare


@pytest.fixture
async def bare_url(tmp_path: Path) -> AsyncIterator[str]:
    async with open_bare(tmp_path) as (url, _):
        yield f"{url}?user_id=a"


@contextmanager
def dial(url: str) -> Iterator[ClientConnection]:
    protocols = [Subprotocol("ringlog.v1")]
    with connect(url, subprotocols=protocols, compression=None, max_size=None) as connection:
        assert json.loads(connection.recv())["type"] == "hello"
        yield connection


def ask(connection: ClientConnection, request: Mapping[str, object]) -> dict[str, object]:
    connection.send(json.dumps(request))
    answer: dict[str, object] = json.loads(connection.recv())
    return answer


def message(number: int, size: int = 10) -> dict[str, object]:
    content = {"text": "x" * size}
    head = {"type": "send", "ref": f"r{number}", "session": "s", "client_id": f"c{number}"}
    return head | {"kind": "text", "content": content}


def written(directory: Path) -> list[bytes]:
    """The texts in the file, each with the checksum that it was written with."""
    data = (directory / "bare.log").read_bytes()
    assert len(data) == FILE_BYTES
    texts, offset = [], 0
    while size := struct.unpack_from("<I", data, offset)[0]:
        text = data[offset + 8 : offset + 8 + size]
        assert struct.unpack_from("<I", data, offset + 4)[0] == zlib.crc32(text)
        texts.append(text)
        offset += 8 + size
    return texts


async def test_it_answers_what_the_generator_asks(bare_url: str) -> None:
    def talk() -> None:
        with dial(bare_url) as connection:
            join = {"type": "join", "ref": "j", "session": "s", "create": {"user_id": "a"}}
            assert ask(connection, join) == {
                "type": "joined",
                "ref": "j",
                "session": "s",
                "head_seq": 0,
            }
            assert ask(connection, {"type": "leave", "ref": "l", "session": "s"}) == {
                "type": "ok",
                "ref": "l",
            }
            acks = [ask(connection, message(number)) for number in range(3)]
            assert [(ack["type"], ack["ref"], ack["seq"], ack["client_id"]) for ack in acks] == [
                ("ack", f"r{number}", number + 1, f"c{number}") for number in range(3)
            ]

    await trio.to_thread.run_sync(talk)


async def test_what_it_acknowledged_was_written(bare_url: str, tmp_path: Path) -> None:
    sizes = (1, 100, 200, 70_000, 300_000)

    def talk() -> list[bytes]:
        with dial(bare_url) as connection:
            for number, size in enumerate(sizes):
                ask(connection, message(number, size))
        return written(tmp_path)

    texts = await trio.to_thread.run_sync(talk)
    assert [json.loads(text) for text in texts] == [
        message(number, size) for number, size in enumerate(sizes)
    ]


async def test_a_client_that_reads_late_gets_every_ack(bare_url: str) -> None:
    count = 40_000

    def talk() -> list[int]:
        with dial(bare_url) as connection, dial(bare_url) as other:
            connection.socket.settimeout(20)
            for number in range(count):
                connection.send(json.dumps(message(number)))
                if number % 10_000 == 0:
                    assert ask(other, message(number))["type"] == "ack"
            return [json.loads(connection.recv())["seq"] for _ in range(count)]

    assert await trio.to_thread.run_sync(talk) == list(range(1, count + 1))


async def test_a_client_that_went_without_its_answers_disturbs_nobody(bare_url: str) -> None:
    def talk() -> None:
        for _ in range(20):
            with dial(bare_url) as connection:
                connection.send(json.dumps(message(1)))
                connection.socket.shutdown(socket.SHUT_RDWR)
        with dial(bare_url) as connection:
            assert ask(connection, message(1))["type"] == "ack"

    await trio.to_thread.run_sync(talk)


async def test_a_child_that_gives_up_is_an_error_with_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"bench\.bare exited with 1"):
        async with open_child("bench.bare", str(tmp_path / "missing")) as child:
            await child.receive_line()


async def test_a_child_is_not_left_behind(tmp_path: Path) -> None:
    with trio.move_on_after(0.5):
        async with open_child("bench.bare", str(tmp_path)) as child:
            pid = child.pid
            await trio.sleep_forever()
    assert not await trio.to_thread.run_sync(partial(Path.exists, Path(f"/proc/{pid}")))
