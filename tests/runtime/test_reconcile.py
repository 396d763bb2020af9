from runtime.reconcile import RELEASE_MAX, Actions, decide
from storage import ACTIVE, JOINING, NodeEntry, Ring

A, B = "a", "b"


def ring(owners: list[str], targets: list[str], state: str = ACTIVE) -> Ring:
    nodes = tuple(NodeEntry(name, "x:1", state, 1, 0, 1, sealed=False) for name in (A, B))
    return Ring(1, nodes, tuple(owners), tuple(targets))


def test_a_node_that_has_what_it_should_have_does_nothing() -> None:
    assert decide(ring([A, B], [A, B]), A, {0}).nothing


def test_its_own_slots_are_served_after_a_restart() -> None:
    assert decide(ring([A, A], [A, A]), A, {1}) == Actions(begin=(0,))


def test_what_is_nobodys_and_meant_for_it_is_claimed_and_nothing_else() -> None:
    assert decide(ring(["", "", B], [A, B, A]), A, set()) == Actions(claim=(0,))


def test_what_is_meant_for_another_is_released_also_if_it_is_not_served() -> None:
    """It was killed in the middle of giving it up: nobody else can."""
    assert decide(ring([A, A], [B, ""]), A, {0}) == Actions(release=(0, 1))


def test_not_too_much_is_released_at_once() -> None:
    count = RELEASE_MAX + 10
    assert len(decide(ring([A] * count, [B] * count), A, set()).release) == RELEASE_MAX


def test_what_is_served_and_anothers_is_lost() -> None:
    assert decide(ring([B, ""], [B, A]), A, {0, 1}).lost == (0, 1)


def test_a_node_that_has_just_come_asks_for_its_share_unless_it_is_leaving() -> None:
    just_come = ring([B], [B], JOINING)
    assert decide(just_come, A, set()) == Actions(join=True)
    assert decide(just_come, A, set(), leaving=True).nothing
