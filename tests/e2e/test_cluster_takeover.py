"""Owners that are lost with their disks, or only seem to be, under load: what was acknowledged goes on elsewhere."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import trio

from storage import Ring
from tests.crash.cluster import Cluster, run_cluster
from tests.crash.rounds import Load
from tests.e2e.test_cluster import judged
from tests.e2e.under_load import more

pytestmark = pytest.mark.postgres


def node_id_in(directory: Path) -> str:
    """Return whose data directory is in a directory."""
    [path] = directory.rglob("node_id")
    return path.read_text().strip().replace("-", "")


async def until_taken_over(cluster: Cluster, node_id: str) -> Ring:
    """Wait until a node owns nothing and everything is owned."""
    with trio.fail_after(40):
        while True:
            ring = await cluster.ring()
            if node_id not in ring.owners and "" not in ring.owners:
                return ring
            await trio.sleep(0.05)


@pytest.mark.timeout(120)
async def test_owners_that_are_lost_with_their_disks_lose_nothing(
    tmp_path: Path, postgres_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        for number, owner in enumerate(cluster.owners[:2]):
            await more(load, 100)
            directory = tmp_path / f"owner-{number}"
            lost = node_id_in(directory)
            await owner.kill()
            shutil.rmtree(directory)
            directory.mkdir()
            await until_taken_over(cluster, lost)
            await more(load, 100)
            await owner.start()
            assert node_id_in(directory) != lost
            await cluster.until_settled()

    judged(await run_cluster(tmp_path, postgres_url, disturb, 3))


@pytest.mark.timeout(120)
async def test_an_owner_that_is_paused_for_too_long_is_taken_over_from_and_says_nothing_more(
    tmp_path: Path, postgres_url: str
) -> None:
    async def disturb(cluster: Cluster, load: Load) -> None:
        for number, owner in enumerate(cluster.owners[:2]):
            await more(load, 100)
            paused = node_id_in(tmp_path / f"owner-{number}")
            os.kill(owner.pid, signal.SIGSTOP)
            await until_taken_over(cluster, paused)
            await more(load, 100)
            os.kill(owner.pid, signal.SIGCONT)
            assert await owner.wait_ended(10) == 70
            await owner.start()
            ring = await cluster.until_settled()
            assert paused in ring.owners
            await more(load, 100)

    judged(await run_cluster(tmp_path, postgres_url, disturb, 3))
