"""Edges and owners as processes of their own, killed and moved under load."""

import random
from functools import partial
from pathlib import Path

import pytest
import trio

from bench.cluster import Cluster
from runtime import plan_weight
from tests.crash.cluster import change_something, run_cluster
from tests.crash.rounds import CrashResult, Load
from tests.e2e.under_load import more


def judged(result: CrashResult) -> CrashResult:
    assert result.findings.ok, result.findings.examples
    assert 100 < result.acknowledged <= result.replayed == result.archived
    return result


@pytest.mark.timeout(120)
async def test_owners_and_edges_that_are_killed_lose_nothing(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        for server in (*cluster.owners, *cluster.edges):
            await more(load, 100)
            await server.crash()
        await more(load, 100)

    result = judged(await run_cluster(tmp_path, archive_url, disturb))
    assert result.reconnects > 0


@pytest.mark.timeout(120)
async def test_a_ring_that_changes_under_load_loses_nothing_and_cuts_nobody_off(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        first, second, _ = cluster.owners
        for change in (
            partial(cluster.drain, first),
            partial(cluster.change, partial(plan_weight, weight=3), second),
            partial(cluster.undrain, first),
            partial(cluster.drain, second),
        ):
            await more(load, 100)
            await change()
            await cluster.ring.until_settled()
        await more(load, 100)

    result = judged(await run_cluster(tmp_path, archive_url, disturb, 3))
    assert result.reconnects == 0


@pytest.mark.timeout(120)
async def test_a_ring_that_changes_while_owners_are_killed_loses_nothing(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        rng = random.Random(3)
        for owner in cluster.owners:
            await more(load, 100)
            await change_something(cluster, rng)
            await trio.sleep(rng.uniform(0, 0.2))
            await owner.crash()
        await cluster.ring.until_settled()
        await more(load, 100)

    judged(await run_cluster(tmp_path, archive_url, disturb, 3))


@pytest.mark.timeout(120)
async def test_an_owner_that_is_told_to_stop_hands_its_sessions_over(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        for owner in cluster.owners[:2]:
            await more(load, 100)
            await owner.stop()
            with trio.fail_after(5):
                while "" in (owners := set((await cluster.ring.read()).owners)):
                    await trio.sleep(0.05)
            assert len(owners) == len(cluster.owners) - 1
            await more(load, 100)
            await owner.start()
            ring = await cluster.ring.until_settled()
            assert len(set(ring.owners)) == len(cluster.owners)

    result = judged(await run_cluster(tmp_path, archive_url, disturb, 3))
    assert result.reconnects == 0
