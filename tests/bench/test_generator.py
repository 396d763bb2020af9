"""The generator's verdict, on servers that lie: each way of breaking the promise is seen."""

import threading
import time
from collections.abc import Callable

import msgspec
import pytest
from websockets.sync.server import ServerConnection

from bench.generator import Outcome, run_load
from bench.histogram import Histogram
from bench.loads.append import AppendPlan, Appends
from bench.tally import Tally
from tests.fakes.liar import Frame, Liar, Lie, Tell, honest, open_liar
from tests.fakes.lies import LIES, LIVE_LIES, kinds_found, lose_the_last

CONNECTIONS = 2


def plan(url: str, **changes: object) -> AppendPlan:
    given = AppendPlan(
        url=url,
        run_id="test",
        connections=CONNECTIONS,
        sessions=CONNECTIONS,
        in_flight=3,
        seconds=0.05,
        warmup_seconds=0.01,
        content_bytes=64,
    )
    return msgspec.structs.replace(given, **changes)


def outcome(lie: Lie, *, refuse_every: int | None = None, **changes: object) -> Outcome:
    return outcome_of(Liar(lie, refuse_every=refuse_every), **changes)


def outcome_of(liar: Liar, **changes: object) -> Outcome:
    with open_liar(liar=liar) as url:
        given = plan(url, **changes)
        return run_load(Appends(given), given, lambda _: None)


def test_an_honest_server_has_a_rate_and_latencies() -> None:
    run = outcome(honest)
    assert run.verdict["ok"], run.examples
    assert 0 < run.counted <= run.acked
    assert run.timeline[0].rate_per_second > 0
    assert Histogram(run.latencies["ack"]).count >= run.counted


def test_messages_go_over_the_sessions_in_turn_and_each_is_checked() -> None:
    run = outcome(honest, sessions=CONNECTIONS * 3)
    assert run.verdict["ok"], run.examples
    lost = outcome(lose_the_last, sessions=CONNECTIONS * 3).verdict
    assert lost["lost"] == CONNECTIONS * 3


class Pinging(Liar):
    """Pings the first connection when the second one comes, and looks for the pong when the third does."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: list[ServerConnection] = []
        self._pong = threading.Event()
        self.is_answered = False

    def serve(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        if len(self._connections) == 2:
            self._pong = self._connections[0].ping()
        elif len(self._connections) == 3:
            self.is_answered = self._pong.wait(5)
        super().serve(connection)


def test_a_connection_answers_pings_while_the_others_are_set_up() -> None:
    liar = Pinging()
    assert outcome_of(liar, connections=3, sessions=3).verdict["ok"]
    assert liar.is_answered


def test_a_run_ends_when_enough_was_counted() -> None:
    run = outcome(honest, seconds=30.0, messages_max=20)
    assert run.counted >= 20
    assert run.seconds < 10


def test_refusals_are_counted_and_not_taken_for_acks() -> None:
    run = outcome(honest, refuse_every=5)
    assert run.verdict["ok"], run.examples
    assert run.refused["backpressure"] > 0


def test_an_open_loop_sends_at_its_rate_whatever_is_answered() -> None:
    run = outcome(honest, per_second=400.0, seconds=0.5, warmup_seconds=0.0, refuse_every=2)
    assert run.verdict["ok"], run.examples
    # All that was due in half a second, and at most what became due until the end was seen.
    assert 200 <= run.acked + run.refused["backpressure"] <= 240


def test_a_stall_is_seen_by_every_message_that_was_due_meanwhile() -> None:
    """The clock stands still for a second of its own: what was due then was sent late, and says so."""
    clock = StepClock()
    with open_liar(honest) as url:
        given = plan(url, per_second=100.0, verify=False)
        load = Appends(given, clock)
        load.begin()
        clock.now = 1.0
        load.turn(0)
        load.drain()
        load.close()
    late = load.tally.now["late"]
    assert late.count == 101
    assert late.max == 1_000_000
    # Due evenly over that second: half of them are half a second late.
    assert abs(late.percentile(50) - 500_000) <= 10_000 + 500_000 // 128


def test_latencies_count_from_when_a_message_was_due() -> None:
    """The writer's own clock is the real one: a message that was due 10 s ago has waited for 10 s."""
    with open_liar(honest) as url:
        given = plan(url, per_second=1.0, connections=1, sessions=1, verify=False)
        load = Appends(given, lambda: time.perf_counter() - 10)
        load.begin()
        load.turn(0)
        load.drain()
        load.close()
    assert load.tally.now["ack"].count == 1
    assert 10_000_000 <= load.tally.now["ack"].max < 20_000_000


def test_a_message_that_is_acknowledged_twice_is_found() -> None:
    run = outcome_of(Liar(acks=2))
    assert run.verdict["duplicated"] > 0


class LateAnswers:
    """A load whose one answer comes only while it drains, after 5 s by its own count."""

    rated = "ack"
    is_done = True
    acked = 1

    def __init__(self) -> None:
        self.tally = Tally("ack")

    def begin(self) -> None: ...

    def turn(self, seconds: float) -> None: ...

    def drain(self) -> None:
        self.tally.now["ack"].record(5_000_000)

    def verify(self, progress: Callable[[str], None]) -> None: ...

    def close(self) -> None: ...


def test_what_is_answered_only_after_the_end_is_among_the_waits_and_not_in_the_rate() -> None:
    run = run_load(LateAnswers(), plan("ws://127.0.0.1:1/"), lambda _: None)
    waits = Histogram(run.latencies["ack"])
    assert (waits.count, waits.max) == (1, 5_000_000)
    assert run.counted == 0


class StepClock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("lie", "kinds"), LIES)
def test_a_lie_is_seen_in_every_session(lie: Lie, kinds: set[str]) -> None:
    assert kinds_found(outcome(lie).verdict, at_least=CONNECTIONS) == kinds


def test_what_senders_are_shown_live_by_an_honest_server_is_clean() -> None:
    run = outcome(honest, joined=True, sessions=CONNECTIONS * 2)
    assert run.verdict["ok"], run.examples
    assert Histogram(run.latencies["delivery"]).count >= run.counted


@pytest.mark.parametrize(("tell", "kinds"), LIVE_LIES)
def test_a_lie_to_a_sender_that_follows_its_session_is_seen(tell: Tell, kinds: set[str]) -> None:
    """Whatever the replay shows: here it is the truth."""
    found = outcome_of(Liar(tell=tell), joined=True).verdict
    assert kinds_found(found, at_least=CONNECTIONS) == kinds


def test_a_sender_that_is_shown_what_it_does_not_follow_is_found() -> None:
    def tell(user: str, message: Frame) -> list[Frame]:
        return [message, message | {"session": "another"}]

    assert "phantom" in kinds_found(outcome_of(Liar(tell=tell), joined=True).verdict)
