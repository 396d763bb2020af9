"""Who lives, by one node's own clock."""

from runtime.heartbeats import ALIVE_SECONDS, BEAT_SECONDS, GAP_SECONDS, Heartbeats
from storage import Heartbeat


def heard(*reads: tuple[float, dict[str, int]]) -> Heartbeats:
    heartbeats = Heartbeats()
    for now, beats in reads:
        hear(heartbeats, beats, now)
    return heartbeats


def hear(
    heartbeats: Heartbeats,
    beats: dict[str, int],
    now: float,
    epoch: int = 1,
    latency: float = 0.0,
) -> None:
    read = {node_id: Heartbeat(epoch, beat) for node_id, beat in beats.items()}
    heartbeats.hear(read, now - latency, now)


def silent_seconds(heartbeats: Heartbeats, node_id: str, now: float, epoch: int = 1) -> float:
    return round(heartbeats.silent_seconds(node_id, epoch, now), 6)


def test_a_node_is_silent_for_as_long_as_its_beat_has_stood_still() -> None:
    heartbeats = heard(*[(float(at), {"a": at, "b": 7}) for at in range(10)])
    assert silent_seconds(heartbeats, "a", 9.0) == 0.0
    assert silent_seconds(heartbeats, "b", 9.0) == 9.0
    assert silent_seconds(heartbeats, "unknown", 9.0) == 0.0


def test_a_node_lives_once_its_beat_was_seen_to_move_and_for_a_while() -> None:
    heartbeats = heard((0.0, {"a": 5, "b": 7}))
    assert heartbeats.alive(0.0) == set()
    hear(heartbeats, {"a": 6, "b": 7}, 1.0)
    assert heartbeats.alive(1.0) == {"a"}
    assert heartbeats.alive(1.0 + ALIVE_SECONDS) == set()


def test_a_beat_that_goes_back_is_one_that_moves() -> None:
    """The archive was restored: whoever counts on from there lives."""
    heartbeats = heard((0.0, {"a": 9}), (1.0, {"a": 9}), (2.0, {"a": 3}))
    assert silent_seconds(heartbeats, "a", 2.0) == 0.0
    assert heartbeats.alive(2.0) == {"a"}


def test_what_a_node_did_not_read_it_does_not_count() -> None:
    """After an outage, or a pause of its own, everybody begins to be silent anew."""
    heartbeats = heard((0.0, {"a": 5}), (BEAT_SECONDS, {"a": 5}))
    back_at = BEAT_SECONDS + GAP_SECONDS + 0.1
    assert silent_seconds(heartbeats, "a", back_at) == 0.0
    hear(heartbeats, {"a": 5}, back_at)
    assert silent_seconds(heartbeats, "a", back_at) == 0.0
    hear(heartbeats, {"a": 5}, back_at + 1)
    assert silent_seconds(heartbeats, "a", back_at + 1) == 1.0


def test_a_node_that_began_again_is_not_silent_for_what_it_was_before() -> None:
    """The ring tells of its new epoch before its beat was read again."""
    heartbeats = heard(*[(float(at), {"a": 5}) for at in range(10)])
    assert silent_seconds(heartbeats, "a", 9.5) == 9.0
    assert silent_seconds(heartbeats, "a", 9.5, epoch=2) == 0.0
    hear(heartbeats, {"a": 6}, 10.0, epoch=2)
    assert silent_seconds(heartbeats, "a", 10.0, epoch=2) == 0.0


def test_a_node_that_comes_new_is_not_silent_yet() -> None:
    heartbeats = heard((0.0, {}), (1.0, {"a": 1}), (2.0, {"a": 1}))
    assert silent_seconds(heartbeats, "a", 2.0) == 1.0


def test_how_long_a_read_took_is_nobodys_silence() -> None:
    heartbeats = heard((0.0, {"a": 5}), (1.0, {"a": 6}))
    hear(heartbeats, {"a": 6}, 3.0, latency=1.5)
    assert silent_seconds(heartbeats, "a", 3.0) == 0.5
