"""The verdict on clients that come and go, with servers that fail them."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from bench.generator import Outcome, run_load
from bench.loads.mixed import Mixed, MixedPlan
from bench.scenarios.mixed import MixedOptions, check, count_sessions
from bench.scenarios.run import OptionsError
from tests.fakes.liar import CatchUp, Frame, Liar, open_liar

CLIENTS = 4
VICTIM = "bench-test-client-1"


def plan(url: str, **changes: object) -> MixedPlan:
    given = MixedPlan(
        url=url,
        run_id="test",
        seconds=0.6,
        warmup_seconds=0.0,
        clients=CLIENTS,
        sessions=2,
        content_bytes=64,
        burst=6,
        in_flight=3,
        stay_seconds=0.05,
        away_seconds=0.05,
        seed=1,
    )
    return msgspec.structs.replace(given, **changes)


def outcome(liar: Liar | None = None, **changes: object) -> tuple[Mixed, Outcome]:
    with open_liar(liar=liar) as url:
        given = plan(url, **changes)
        load = Mixed(given, patience_seconds=0.5)
        return load, run_load(load, given, lambda _: None)


def found(run: Outcome) -> set[str]:
    return {kind for kind, count in run.verdict.items() if count and kind != "ok"}


def test_clients_come_and_go_and_everything_is_found_in_its_place() -> None:
    load, run = outcome()
    assert run.verdict["ok"], run.examples
    assert load.tally.count("replay") > 2 * CLIENTS
    for kind in ("ack", "delivery", "repeat"):
        assert load.tally.count(kind) > 0, kind
    assert run.acked == load.tally.count("ack") + load.tally.count("repeat")


def test_refusals_are_sent_again_in_an_order_that_fits() -> None:
    _, run = outcome(Liar(refuse_every=7))
    assert run.verdict["ok"], run.examples
    assert run.refused["backpressure"] > 0


def test_a_server_that_stores_a_repeat_again_is_found() -> None:
    _, run = outcome(Liar(forgets=True))
    assert "duplicated" in found(run)


class Once:
    """Spoil the first replay of two messages or more that the victim gets."""

    def __init__(self, spoil: CatchUp) -> None:
        self._spoil = spoil
        self.is_spoilt = False

    def __call__(self, user: str, missed: list[Frame]) -> list[Frame]:
        if user != VICTIM or len(missed) < 2 or self.is_spoilt:
            return missed
        self.is_spoilt = True
        return self._spoil(user, missed)


def with_a_gap(user: str, missed: list[Frame]) -> list[Frame]:
    return missed[1:]


def from_too_early(user: str, missed: list[Frame]) -> list[Frame]:
    return [missed[0], *missed]


def changed(user: str, missed: list[Frame]) -> list[Frame]:
    return [missed[0] | {"content": {}}, *missed[1:]]


def swapped(user: str, missed: list[Frame]) -> list[Frame]:
    return [missed[1], missed[0], *missed[2:]]


@pytest.mark.parametrize(
    ("spoil", "kinds"),
    [
        (with_a_gap, {"gap", "lost"}),
        (from_too_early, {"duplicated"}),
        (changed, {"changed"}),
        (swapped, {"gap", "lost", "duplicated"}),
    ],
)
def test_one_replay_that_is_spoilt_is_found(spoil: CatchUp, kinds: set[str]) -> None:
    once = Once(spoil)
    _, run = outcome(Liar(catch_up=once))
    assert once.is_spoilt
    assert found(run) == kinds


def lose_one(user: str, message: Frame) -> list[Frame]:
    return [] if user == VICTIM and message["seq"] % 5 == 0 else [message]


def test_a_live_message_that_is_not_shown_is_found() -> None:
    _, run = outcome(Liar(tell=lose_one))
    assert found(run) == {"gap", "lost"}


def test_a_client_that_is_never_shown_the_end_does_not_stop_the_run() -> None:
    def show_nothing(user: str, message: Frame) -> list[Frame]:
        return []

    def show_none(user: str, missed: list[Frame]) -> list[Frame]:
        return [] if user == VICTIM else missed

    _, run = outcome(Liar(tell=show_nothing, catch_up=show_none))
    assert found(run) == {"lost"}


def options(**changes: object) -> MixedOptions:
    given = MixedOptions(directory=Path(), clients=200, seconds=1.0)
    return dataclasses.replace(given, **changes)  # type: ignore[arg-type]


def test_two_clients_share_a_session() -> None:
    assert count_sessions(options()) == 100
    assert count_sessions(options(clients=1)) == 1
    assert count_sessions(options(sessions=7)) == 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clients": 3, "sessions": 4}, "each needs a client"),
        ({"clients": 100, "sessions": 1}, "a repeat might be stored again"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(OptionsError, match=reason):
        check(options(**changes))
