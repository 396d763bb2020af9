"""The clients of a demonstration, with a server that is honest and with some that are not."""

import pytest
import trio

from bench.demos.traffic import REST_SECONDS, Traffic
from tests.fakes.liar import Liar, Lie, honest, open_liar
from tests.fakes.lies import LIES, kinds_found

USERS, SESSIONS = 6, 3


async def talk(url: str, seconds: float = 0.5) -> Traffic:
    traffic = Traffic([url, url], users=USERS, sessions=SESSIONS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run)
        await trio.sleep(seconds)
        traffic.stop()
    return traffic


async def test_everybody_is_acknowledged_and_shown_and_what_is_replayed_is_that() -> None:
    with open_liar(honest) as url:
        traffic = await talk(url)
        assert traffic.check(url) == traffic.acknowledged > 0
    assert traffic.findings.ok, traffic.findings.examples
    noticed = traffic.look()
    assert set(noticed.pauses) == set(traffic.sessions)
    assert noticed.longest_pause(set(traffic.sessions)) >= REST_SECONDS
    assert noticed.longest_pause(set()) == 0
    assert not noticed.refusals
    assert traffic.look().pauses == {}


@pytest.mark.parametrize(("lie", "kinds"), LIES)
async def test_a_lie_is_seen_in_every_session(lie: Lie, kinds: set[str]) -> None:
    with open_liar(lie) as url:
        traffic = await talk(url)
        traffic.check(url)
    assert kinds_found(traffic.findings.verdict(), at_least=SESSIONS) >= kinds


async def test_refusals_are_counted_by_their_code_and_repeated() -> None:
    with open_liar(liar=Liar(refuse_every=10)) as url:
        traffic = await talk(url, 1.0)
        traffic.check(url)
    assert traffic.findings.ok, traffic.findings.examples
    assert traffic.look().refusals["backpressure"] > 0
