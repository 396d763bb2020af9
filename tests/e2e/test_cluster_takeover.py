"""Owners that are lost with their disks, or only seem to be, under load: what was acknowledged goes on elsewhere."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import trio

from bench.cluster import Cluster, node_id_of
from tests.crash.cluster import run_cluster
from tests.crash.rounds import Load
from tests.e2e.test_cluster import judged
from tests.e2e.under_load import more

pytestmark = pytest.mark.postgres


SETTINGS = {"takeover-seconds": "4"}


@pytest.mark.timeout(120)
async def test_owners_that_are_lost_with_their_disks_lose_nothing(
    tmp_path: Path, postgres_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        for owner in cluster.owners[:2]:
            await more(load, 100)
            lost = node_id_of(owner.data)
            await owner.kill()
            await trio.to_thread.run_sync(shutil.rmtree, owner.data)
            await cluster.ring.until_given_away(lost)
            await more(load, 100)
            await owner.start()
            assert node_id_of(owner.data) != lost
            await cluster.ring.until_settled()

    judged(await run_cluster(tmp_path, postgres_url, disturb, 3, SETTINGS))


@pytest.mark.timeout(120)
async def test_an_owner_that_is_paused_for_too_long_is_taken_over_from_and_says_nothing_more(
    tmp_path: Path, postgres_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        for owner in cluster.owners[:2]:
            await more(load, 100)
            paused = node_id_of(owner.data)
            os.kill(owner.pid, signal.SIGSTOP)
            await cluster.ring.until_given_away(paused)
            await more(load, 100)
            os.kill(owner.pid, signal.SIGCONT)
            assert await owner.wait_ended(10) == 70
            await owner.start()
            ring = await cluster.ring.until_settled()
            assert paused in ring.owners
            await more(load, 100)

    judged(await run_cluster(tmp_path, postgres_url, disturb, 3, SETTINGS))
