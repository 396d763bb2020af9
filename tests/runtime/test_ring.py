import random
from collections import Counter

import pytest

from runtime.ring import SLOTS, Move, assign, moves, slot_of

NAME_SETS = 100


def names(seed: int, count: int) -> list[str]:
    """Return ids as nodes have them."""
    rng = random.Random(seed)
    return [f"{rng.getrandbits(128):032x}" for _ in range(count)]


def equal(nodes: list[str]) -> dict[str, int]:
    return dict.fromkeys(nodes, 1)


def test_a_session_has_the_same_slot_everywhere_and_for_ever() -> None:
    # These may never change: an archive that is in use was divided by them.
    assert slot_of("default", "general") == 2712
    assert slot_of("default", "tour") == 3486
    assert slot_of("acme", "general") == 3044


def test_slots_are_used_evenly() -> None:
    counts = Counter(slot_of("w", f"s{n}", 16) for n in range(16_000))
    assert len(counts) == 16
    assert max(counts.values()) < 1.2 * 1_000


def test_no_two_keys_look_alike_where_one_name_runs_into_the_other() -> None:
    assert slot_of("ab", "c") != slot_of("a", "bc")


@pytest.mark.slow
def test_nobody_has_much_more_than_a_fair_share_of_three() -> None:
    for seed in range(NAME_SETS):
        counts = Counter(assign(equal(names(seed, 3))))
        assert max(counts.values()) <= 1.08 * SLOTS / 3


@pytest.mark.slow
def test_a_fourth_node_takes_little_more_than_its_share() -> None:
    worst = 0
    for seed in range(NAME_SETS):
        nodes = names(seed, 4)
        moved = moves(assign(equal(nodes[:3])), assign(equal(nodes)))
        worst = max(worst, len(moved))
    assert worst <= (1 / 4 + 0.03) * SLOTS


@pytest.mark.slow
def test_a_hundred_nodes_are_balanced_and_one_that_leaves_moves_little() -> None:
    for seed in range(5):
        nodes = names(seed, 100)
        before = assign(equal(nodes))
        counts = Counter(before)
        assert max(counts.values()) <= 1.08 * SLOTS / 100 + 1
        moved = moves(before, assign(equal(nodes[:-1])))
        assert len(moved) <= 3 * counts[nodes[-1]]


def test_a_node_of_twice_the_weight_has_about_twice_as_much() -> None:
    counts = Counter(assign({"a": 1, "b": 2, "c": 1}))
    assert 0.95 * SLOTS / 2 <= counts["b"] <= 1.05 * SLOTS / 2 + 1


def test_the_order_in_which_nodes_are_named_does_not_matter() -> None:
    assert assign({"a": 1, "b": 2}) == assign({"b": 2, "a": 1})


def test_without_nodes_slots_are_nobodys() -> None:
    assert assign({}, 4) == ("", "", "", "")


def test_a_move_is_where_the_target_is_another() -> None:
    assert moves(["a", "b", ""], ["a", "c", "a"]) == [Move(1, "b", "c"), Move(2, "", "a")]
