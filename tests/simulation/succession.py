"""Schedules of the takeover model: owners that die, lose their disks, pause and come back, and what a checker finds."""

from collections.abc import Callable
from random import Random

import trio

from storage import FencedError
from tests.simulation.faults import Fault
from tests.simulation.scheduler import run_seeded
from tests.simulation.server import Server
from tests.simulation.takeover import Disk, Entry, Flaw, Owner, Tables
from tests.simulation.weather import Weather

NAMES = ("n1", "n2", "n3")
SETTLE_SECONDS = 60.0
MACHINE_LOST = "machine lost"


class Succession:
    """One schedule, from its seed."""

    def __init__(self, seed: int, flaw: Flaw | None = None) -> None:
        self.trace: list[str] = []
        self.problems: list[str] = []
        self.takeovers = 0
        self._random = random = Random(f"succession {seed}")
        self._weather = weather = Weather(Random(f"weather {seed}"))
        weather.delayed = random.choice((0.02, 0.2))
        weather.broken = random.choice((0.0, 0.0, 0.01))
        weather.slow_commits = random.choice((0.0, 0.1, 0.3))
        weather.lost_answers = random.choice((0.0, 0.1))
        # In `local` nobody is taken over; but nothing may be set aside either.
        self._replicated = random.random() < 0.75
        self._names = NAMES[: random.choice((2, 2, 3))]
        self._slots = random.randint(1, 3)
        self._server = Server(weather, self.note)
        self._tables = Tables(self._server, self._slots, self._names)
        self._disks = {name: Disk() for name in self._names}
        self._owners: dict[str, Owner] = {}
        self._flaw = flaw
        self._losing: set[str] = set()
        """Machines that are lost with their next process."""
        self._unanswered = 0
        self._seqs: dict[tuple[int, int], str] = {}
        self._acks: dict[tuple[int, str], int] = {}
        self._seed = seed

    def run(self) -> "Succession":
        """Run it, and check what came of it."""
        run_seeded(self._seed, self._run)
        self.takeovers = sum(" over" in line and "takes" in line for line in self.trace)
        return self

    def note(self, line: str) -> None:
        self.trace.append(f"{trio.current_time():8.3f}  {line}")

    def acknowledged(self, name: str, entry: Entry) -> None:
        self.note(f"{name} acknowledges {entry.slot}/{entry.text} at {entry.seq}")
        first = self._acks.setdefault((entry.slot, entry.text), entry.seq)
        other = self._seqs.setdefault((entry.slot, entry.seq), entry.text)
        if (first, other) != (entry.seq, entry.text):
            self.problems.append(f"{entry} was acknowledged at {first}, and {other} at its seq")

    async def _run(self) -> None:
        random = self._random
        async with trio.open_nursery() as nursery:
            self._server.nursery = nursery
            for name in self._names:
                nursery.start_soon(self._supervise, name)
            for slot in range(self._slots):
                for writer in ("a", "b"):
                    count = random.randint(2, 6)
                    self._unanswered += count
                    nursery.start_soon(self._write, slot, writer, count)
            for _ in range(random.randint(1, 6)):
                await trio.sleep(random.uniform(0.1, 1.0))
                nursery.start_soon(self._disturb, random.choice(self._names))
            await self._settle()
            for owner in self._owners.values():
                owner.kill()
            nursery.cancel_scope.cancel()
        self._check()

    async def _supervise(self, name: str) -> None:
        while True:
            owner = self._owners[name] = Owner(
                name,
                self._tables,
                self._disks[name],
                self,
                self._flaw,
                replicated=self._replicated,
            )
            try:
                await owner.run()
                reason = "killed"
            except* FencedError:
                reason = "fenced"
            except* Exception as group:  # noqa: BLE001 - judged
                reason = "failed"
                self.problems.append(f"{name} failed: {group.exceptions!r}")
            owner.dead = True
            if name in self._losing:
                self._losing.discard(name)
                self._disks[name] = Disk()
            self.note(f"{name} ended: {reason}")
            await trio.sleep(self._random.uniform(0.05, 2.5))

    async def _disturb(self, name: str) -> None:
        random = self._random
        kinds: list[str] = [Fault.KILL, Fault.KILL_AT_COMMIT, Fault.PAUSE, Fault.CUT]
        if self._replicated:
            kinds += [MACHINE_LOST, MACHINE_LOST]
        kind, owner = random.choice(kinds), self._owners[name]
        seconds = random.uniform(0.1, 4.0)
        self.note(f"{kind}: {name} {seconds:.1f}")
        if kind == Fault.PAUSE:
            owner.pause()
            await trio.sleep(seconds)
            owner.resume()
        elif kind == Fault.CUT:
            self._weather.cut.add(name)
            await trio.sleep(seconds)
            self._weather.cut.discard(name)
        elif kind == Fault.KILL_AT_COMMIT:
            owner.dies_at_commit = True
            if self._replicated and random.random() < 0.5:
                self._losing.add(name)
        else:
            if kind == MACHINE_LOST:
                self._disks[name] = Disk()
            owner.kill()

    async def _write(self, slot: int, writer: str, count: int) -> None:
        random = self._random
        for number in range(count):
            await trio.sleep(random.uniform(0, 0.6))
            text = f"{writer}{number}"
            answered = trio.Event()
            while not answered.is_set():
                owners = [each for each in self._owners.values() if slot in each.serving]
                if owners:
                    await self._send(random.choice(owners), slot, text, answered.set)
                with trio.move_on_after(random.uniform(0.1, 1.0)):
                    await answered.wait()
            self._unanswered -= 1

    async def _send(self, owner: Owner, slot: int, text: str, answer: Callable[[], None]) -> None:
        with trio.move_on_after(0.5):
            await owner.step()
            if not owner.dead:
                owner.append(slot, text, answer)

    async def _settle(self) -> None:
        self._weather.clear()
        for owner in self._owners.values():
            owner.resume()
            owner.dies_at_commit = False
        self._losing.clear()
        self.note("no more faults")
        with trio.move_on_after(SETTLE_SECONDS) as patience:
            while not self._is_settled():
                await trio.sleep(0.2)
        if patience.cancelled_caught:
            self.problems.append("never settled")

    def _is_settled(self) -> bool:
        owners = [self._server.rows.committed[key] for key in self._tables.slots]
        return not self._unanswered and all(
            slot in self._owners[name].serving
            and not self._owners[name].dead
            and not self._owners[name].unflushed
            for slot, name in enumerate(owners)
        )

    def _check(self) -> None:
        for slot in range(self._slots):
            entries = self._tables.entries(slot)
            if [entry.seq for entry in entries] != list(range(1, len(entries) + 1)):
                self.problems.append(f"slot {slot} has the seqs {[entry.seq for entry in entries]}")
            texts = [entry.text for entry in entries]
            if len(set(texts)) != len(texts):
                self.problems.append(f"slot {slot} has a message twice: {texts}")
            archived = {entry.text: entry.seq for entry in entries}
            self.problems += [
                f"{text} was acknowledged at {seq}, and is at {archived.get(text)}"
                for (of, text), seq in self._acks.items()
                if of == slot and archived.get(text) != seq
            ]
