"""The load on a peer, and its verdict: what was acknowledged and is not stored is seen."""

from contextlib import closing

import msgspec
import pytest

from bench.child import open_child
from bench.generator import MEASURED, MEASURING, Outcome, run_load
from bench.peers.appends import PeerAppends, PeerPlan
from bench.peers.generator import FAILED
from bench.wire import WireError
from tests.fakes.redis import Lie, honest, open_fake_redis

CONNECTIONS = 3

STAGES = {MEASURING.encode(), MEASURED.encode()}


def plan(url: str, in_flight: int = 1) -> PeerPlan:
    return PeerPlan(
        url=url,
        run_id="test",
        seconds=0.1,
        warmup_seconds=0.01,
        driver="redis",
        connections=CONNECTIONS,
        in_flight=in_flight,
        content_bytes=200,
    )


def outcome(lie: Lie, in_flight: int = 1) -> Outcome:
    with open_fake_redis(lie) as url:
        planned = plan(url, in_flight)
        return run_load(PeerAppends(planned), planned, lambda _: None)


@pytest.mark.parametrize("in_flight", [1, 16])
def test_an_honest_peer_has_a_rate_and_latencies(in_flight: int) -> None:
    made = outcome(honest, in_flight)
    assert made.verdict["ok"], made.examples
    assert made.acked >= made.counted > 0
    assert sum(made.latencies["ack"].cells.values()) >= made.counted


def lose_one(contents: list[bytes]) -> list[bytes]:
    return contents[:2] + contents[3:]


def lose_the_last(contents: list[bytes]) -> list[bytes]:
    return contents[:-1]


def repeat_one(contents: list[bytes]) -> list[bytes]:
    return [*contents, contents[0]]


def swap_two(contents: list[bytes]) -> list[bytes]:
    return [contents[1], contents[0], *contents[2:]]


def change_one(contents: list[bytes]) -> list[bytes]:
    return [contents[0].replace(b"xx", b"yy", 1), *contents[1:]]


def invent_one(contents: list[bytes]) -> list[bytes]:
    return [*contents, b"nobody sent this, whatever it may be"]


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (lose_one, "lost"),
        (lose_the_last, "lost"),
        (repeat_one, "duplicated"),
        (swap_two, "reordered"),
        (change_one, "changed"),
        (invent_one, "phantom"),
    ],
)
def test_a_peer_that_does_not_store_what_it_acknowledged_is_caught(lie: Lie, kind: str) -> None:
    made = outcome(lie)
    assert made.verdict["ok"] is False
    assert made.verdict[kind] >= CONNECTIONS, made.examples


def test_a_refusal_ends_the_run() -> None:
    with open_fake_redis(refuse_after=5) as url:
        planned = plan(url)
        with closing(PeerAppends(planned)) as load, pytest.raises(WireError, match="OOM"):
            run_load(load, planned, lambda _: None)


async def test_the_generator_says_why_there_is_no_outcome() -> None:
    with open_fake_redis(refuse_after=5) as url:
        async with open_child("bench.peers.generator") as generator:
            await generator.send_line(msgspec.json.encode(plan(url)))
            assert await generator.receive_line() == b"ready"
            await generator.send_line()
            # On a busy machine the warm-up may be over before anything is refused.
            while (said := await generator.receive_line()) in STAGES:
                pass
            await generator.end()
    assert said.startswith(FAILED.encode())
    assert b"OOM" in said


async def test_a_peer_that_is_not_there_is_a_finding() -> None:
    async with open_child("bench.peers.generator") as generator:
        await generator.send_line(msgspec.json.encode(plan("tcp://127.0.0.1:1")))
        said = await generator.receive_line()
        await generator.end()
    assert said.startswith(b"failed: ConnectionRefusedError")
