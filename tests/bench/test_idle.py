"""Sessions that are made by the thousand are looked into, and connections that idle stay alive."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bench.checker import Findings
from bench.loads.idle import IdleConnections
from bench.loads.known import KnownSessions
from bench.report import Figure
from bench.scenarios.idle import (
    CONNECTIONS_MAX,
    JOINS,
    IdleOptions,
    at_rest,
    run_idle,
    sessions_to_join,
    wait_at_rest,
    weight,
)
from bench.scenarios.run import OptionsError
from bench.wire import WireError
from tests.fakes.liar import Lie, honest, open_liar
from tests.fakes.lies import LIES_ABOUT_ONE, kinds_found

SAMPLED = 7


def known(count: int, sampled: int = SAMPLED) -> KnownSessions:
    return KnownSessions("known", count, sampled, random.Random(0))


def found(lie: Lie) -> Findings:
    findings = Findings()
    sessions = known(40)
    with open_liar(lie) as url:
        sessions.make(url, lambda _: None)
        sessions.check(url, findings)
    return findings


def test_the_sample_of_an_honest_server_is_clean() -> None:
    assert found(honest).ok


@pytest.mark.parametrize(("lie", "kinds"), LIES_ABOUT_ONE)
def test_a_lie_is_seen_in_each_session_of_the_sample(lie: Lie, kinds: set[str]) -> None:
    assert kinds_found(found(lie).verdict(), at_least=SAMPLED) == kinds


def test_a_session_of_the_sample_that_was_never_written_is_seen() -> None:
    findings = Findings()
    with open_liar() as url:
        made, other = known(40), known(40)
        made.make(url, lambda _: None)
        with open_liar() as empty:
            made.check(empty, findings)
        assert kinds_found(findings.verdict(), at_least=SAMPLED) == {"lost"}
        # What nobody was promised may be there or not.
        other.check(url, nothing := Findings())
    assert nothing.ok


def test_a_message_that_is_refused_is_an_error() -> None:
    with open_liar(refuse_every=5) as url, pytest.raises(WireError, match="backpressure"):
        known(40).make(url, lambda _: None)


def test_all_sessions_are_made_over_several_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.loads.known.PART_SESSIONS", 15)
    monkeypatch.setattr("bench.loads.known.BATCH_SESSIONS", 4)
    lines: list[str] = []
    findings = Findings()
    sessions = known(40, sampled=40)
    with open_liar() as url:
        sessions.make(url, lines.append)
        sessions.check(url, findings)
    assert findings.ok, findings.examples
    assert lines[-1] == "made 40 of 40 sessions"
    assert len(lines) == 3


def test_connections_join_idle_and_are_timed() -> None:
    sessions = known(3)
    with open_liar() as url, closing(IdleConnections(url)) as connections:
        connections.add(sessions_to_join(sessions, 5), lambda _: None)
        assert len(connections) == 5
        connections.idle(0.01)
        joins = connections.time_joins(sessions.sample)
    assert (joins.count, len(connections)) == (3, 0)
    assert joins.max > 0


def test_a_connection_that_is_lost_while_it_idles_is_an_error() -> None:
    def idle(url: str, joined: threading.Event) -> None:
        with closing(IdleConnections(url)) as connections:
            connections.add(["a"], lambda _: None)
            joined.set()
            connections.idle(20.0)

    joined = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        with open_liar() as url:
            done = threads.submit(idle, url, joined)
            joined.wait(10.0)
        with pytest.raises(WireError, match="connection 0: the server closed"):
            done.result()


def test_each_connection_joins_a_session_in_turn() -> None:
    assert sessions_to_join(known(2), 5) == [
        "known-0", "known-1", "known-0", "known-1", "known-0",
    ]  # fmt: skip
    assert len(set(sessions_to_join(known(50), 20))) == 20


def test_only_sessions_that_nobody_follows_are_joined_against_the_clock() -> None:
    assert at_rest(["a", "b", "c"], ["b", "d"]) == ["a", "c"]
    assert len(at_rest([str(n) for n in range(2 * JOINS)], [])) == JOINS


def test_the_sample_is_chosen_by_the_seed_and_has_no_more_than_there_are() -> None:
    assert known(1_000).sample == known(1_000).sample
    assert sorted(known(3).sample) == ["known-0", "known-1", "known-2"]


def test_what_one_weighs_is_its_share() -> None:
    assert weight("memory", 6_000, 40) == Figure("memory", 150.0, "bytes")


async def test_a_server_that_does_not_say_what_is_active_is_an_error() -> None:
    with open_liar() as url, pytest.raises(WireError, match="does not say"):
        await wait_at_rest(url)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"connections": CONNECTIONS_MAX + 1}, "lets 10,000 in"),
    ],
    ids=["url", "connections"],
)
async def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, options: dict[str, str | int], reason: str
) -> None:
    with pytest.raises(OptionsError, match=reason):
        await run_idle(IdleOptions(directory=tmp_path, **options))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_bench_knows_how_many_connections_the_documentation_allows() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "protocol.md"
    assert f"| `connections_max` | {CONNECTIONS_MAX} |" in page.read_text()
