"""The simulated archive answers as the real one does: the same calls, drawn at random, on both.

What it does beyond that, wait for row locks, is compared with PostgreSQL's documentation by hand, and tested for the
product's own statements in `tests/storage/`.
"""

from collections.abc import Awaitable
from random import Random
from typing import Any

import pytest
import trio

from storage import REPLICATED, Archive, Place, PlannedChange, StorageError
from storage.batches import Batch
from storage.frame import append_record
from tests.simulation.archive import SimulatedArchive
from tests.simulation.rows import DeadlockError, Rows
from tests.simulation.weather import Weather
from tests.storage.archive_records import message, session_row
from tests.storage.logs import record

NODES = ("node-a", "node-b")
SLOTS = 4
CALLS = 2_000

Call = tuple[str, tuple[Any, ...]]


def draw_call(random: Random, archive: SimulatedArchive, level: str) -> Call:
    """Return a call as a node or an operator makes it, or one that comes too late or from the wrong place."""
    node = random.choice(NODES)
    epoch, lsn = archive.epoch_of(node).epoch, archive.cursor_of(node)
    version = archive.ring().version
    epoch -= random.random() < 0.2
    lsn += random.choice((-1, 0, 0, 0, 0, 1))
    version += random.random() < 0.2
    slots = sorted(random.sample(range(SLOTS), random.randint(1, SLOTS)))
    first = random.randint(1, 5)
    records = [message(seq, session=node) for seq in range(first, first + random.randint(1, 3))]
    other = message(first, session=node, body=b"{}")
    change = PlannedChange(
        version,
        7,
        "me",
        "weight",
        node,
        targets=[(slot, random.choice((*NODES, ""))) for slot in slots],
        states=[(node, random.choice(("active", "draining")))],
        weights=[(node, random.randint(1, 5))],
    )
    place = Place(node, 1, SLOTS, patience_ms=random.choice((0, 5_000)))
    calls: list[tuple[float, Call]] = [
        (4, ("begin_epoch", (node, level, random.choice((0, 0, 9)), place))),
        (1, ("retire_node", (node, epoch))),
        *draw_takeover(random, archive, node, NODES[node == NODES[0]], slots),
        (0.5, ("settle_whole", (node, epoch, lsn))),
        (0.5, ("list_losses", ())),
        (1, ("read_cursor", (node,))),
        (1, ("read_level", ())),
        (2, ("flush", (node, epoch, lsn, (session_row(node), *records)))),
        (3, ("flush", (node, epoch, lsn, tuple(records)))),
        (1, ("flush", (node, epoch, lsn, (*records, other)))),
        (4, ("claim_slots", (node, epoch, tuple(slots)))),
        (3, ("release_slots", (node, epoch, lsn, tuple(slots)))),
        (1, ("beat", (node, epoch))),
        (3, ("read_ring", ())),
        (1, ("read_ring_version", ())),
        (1, ("read_beats", ())),
        (2, ("read_sessions", ([("default", node), ("default", NODES[0])], 2, node, lsn))),
        (2, ("read_messages", ("default", node, first, 2))),
        (3, ("change_ring", (change,))),
    ]
    if level == REPLICATED:
        # As a log would have them; or one that is there already, or leaves a hole.
        lsn_end = lsn + random.choice((0, 0, 0, 1, 2))
        calls += [
            (4, ("add", (node, epoch, make_batch(lsn_end, random.randint(1, 2), random)))),
            (3, ("read_batches", (node, lsn + random.choice((0, 0, 1, 2))))),
        ]
    return random.choices([call for _, call in calls], [weight for weight, _ in calls])[0]


def draw_takeover(
    random: Random, archive: SimulatedArchive, node: str, dead: str, slots: list[int]
) -> list[tuple[int, Call]]:
    """Return calls, each with its weight, by which one node takes over from another."""
    epoch = archive.epoch_of(dead).epoch - (random.random() < 0.2)
    cursor = archive.cursor_of(dead) + random.choice((0, 0, 0, 1))
    version = archive.ring().version + (random.random() < 0.5)
    first = random.randint(1, 5)
    records = tuple(message(seq, session=dead) for seq in range(first, first + 2))
    targets = [(slot, node) for slot in slots]
    change = PlannedChange(version, 7, "me", "takeover", dead, targets, [(dead, "dead")])
    removal = PlannedChange(version, 7, "me", "remove", dead, removed=[(dead, epoch)])
    return [
        (1, ("seal_node", (dead, epoch))),
        (2, ("flush_sealed", (dead, epoch, cursor, records))),
        (3, ("take_over", (epoch, change))),
        (1, ("change_ring", (removal,))),
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_the_simulated_archive_answers_as_the_real_one(
    archive: Archive, archive_url: str, seed: int
) -> None:
    level = "local" if archive_url.startswith("sqlite") else REPLICATED
    random = Random(seed)
    simulated = SimulatedArchive(Weather(random))
    simulated.server.weather.delayed = 0
    answers: set[tuple[str, str]] = set()
    for number in range(CALLS):
        name, arguments = draw_call(random, simulated, level)
        if number < len(NODES):
            name, arguments = "begin_epoch", (NODES[number], level, 0, Place("a", 1, SLOTS))
        wanted = await answer(archive, name, arguments)
        assert await answer(simulated, name, arguments) == wanted, (name, arguments)
        answers.add((name, wanted[0].__name__ if wanted[0] else str(bool(wanted[1]))))
    assert answers >= {
        ("claim_slots", "True"),
        ("claim_slots", "False"),
        ("claim_slots", "FencedError"),
        ("release_slots", "True"),
        ("release_slots", "CursorMismatchError"),
        ("change_ring", "True"),
        ("change_ring", "RingChangedError"),
        ("flush", "False"),
        ("flush", "FencedError"),
        ("flush", "CursorMismatchError"),
        ("flush", "ArchiveConflictError"),
        ("read_messages", "True"),
        ("seal_node", "True"),
        ("seal_node", "False"),
        ("flush_sealed", "False"),
        ("flush_sealed", "NodeReturnedError"),
        ("take_over", "True"),
        ("take_over", "NodeReturnedError"),
        ("take_over", "RingChangedError"),
    }
    if level == REPLICATED:
        assert answers >= {
            ("add", "False"),
            ("add", "FencedError"),
            ("read_batches", "True"),
            ("read_batches", "False"),
            ("read_batches", "CorruptLogError"),
            ("take_over", "CursorMismatchError"),
        }


async def answer(archive: Any, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return what a call returns, or what it raises, with its reason."""
    writer = None
    try:
        if name == "add":
            writer = archive.open_batch_writer(*arguments[:2])
            result = writer.add(arguments[2])
        else:
            result = getattr(archive, name)(*arguments)
        return "", await result if isinstance(result, Awaitable) else result
    except StorageError as error:
        return type(error), str(error)
    finally:
        if writer is not None:
            writer.close()


def make_batch(first_lsn: int, count: int, random: Random) -> Batch:
    """Return a batch; its records differ from those of another one at the same place, now and then."""
    payload = bytearray()
    for lsn in range(first_lsn, first_lsn + count):
        append_record(payload, record(lsn, body=b"x" * random.choice((1, 1, 1, 2))))
    return Batch(first_lsn, first_lsn + count, bytes(payload))


async def test_who_shares_a_row_holds_up_who_changes_it_until_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rows = Rows()
    rows.committed["epoch",] = 1
    holder, taker = rows.begin(), rows.begin()
    assert await holder.lock(("epoch",), lambda epoch: epoch == 1, share=True) == 1

    async def take() -> None:
        await taker.update([("epoch",)], lambda _: True, lambda epoch: epoch + 1)
        taker.commit()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.sleep(1)
        assert rows.committed["epoch",] == 1
        holder.commit()
    assert rows.committed["epoch",] == 2


async def test_who_waited_for_a_row_looks_at_it_again() -> None:
    rows = Rows()
    rows.committed["epoch",] = 1
    changer, checker = rows.begin(), rows.begin()
    await changer.update([("epoch",)], lambda _: True, lambda epoch: epoch + 1)
    found = []

    async def check() -> None:
        found.append(await checker.lock(("epoch",), lambda epoch: epoch == 1, share=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check)
        await trio.testing.wait_all_tasks_blocked()
        changer.commit()
    assert found == [None]


async def test_what_is_not_committed_is_seen_by_nobody_else() -> None:
    rows = Rows()
    writer, reader = rows.begin(), rows.begin()
    await writer.insert(("row",), 5)
    assert (writer.read(("row",)), reader.read(("row",))) == (5, None)
    writer.end()
    assert not writer.commit()
    assert reader.read(("row",)) is None


async def test_a_circle_of_waiting_transactions_is_an_error() -> None:
    rows = Rows()
    rows.committed |= {("a",): 1, ("b",): 1}
    one, other = rows.begin(), rows.begin()
    await one.lock(("a",), bool)
    await other.lock(("b",), bool)
    with pytest.raises(ExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.lock, ("b",), bool)
            await trio.testing.wait_all_tasks_blocked()
            await other.lock(("a",), bool)
    assert raised.group_contains(DeadlockError)
