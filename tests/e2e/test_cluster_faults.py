"""A cluster whose database, network or owners fail under load: nothing is lost, and nobody ends."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from bench.cluster import Cluster, ClusterOptions, Site
from bench.postgres import PostgresServer, PrivatePostgresServer
from tests.crash import network, phases
from tests.crash.cluster import run_clients, run_crowd
from tests.crash.crowd import Crowd, CrowdOptions
from tests.crash.outages import Database
from tests.crash.phases import Phase
from tests.e2e.test_cluster_deaths import few, judged
from tests.fakes.proxy import open_cutting_proxy

pytestmark = pytest.mark.timeout(180)


def phase(name: str, rounds: int) -> Phase:
    return Phase(name, rounds, random.Random(name), print)


@pytest.mark.postgres
async def test_a_database_that_stops_crashes_and_cuts_commits_ends_no_owner(
    tmp_path: Path, postgres_database: tuple[PostgresServer, str]
) -> None:
    """One round of each fault, and slots move in one of them. Who ends by itself fails the run."""
    postgres, name = postgres_database
    if not isinstance(postgres, PrivatePostgresServer):
        pytest.fail("RINGLOG_TEST_PG_DSN names a server that a test may not stop: unset it")
    url = postgres.url(name)
    crowd = Crowd(few(url))
    upset = phase("pg-stops", 5)
    with open_cutting_proxy(postgres.port) as proxy:
        behind = Site(f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}")
        database = Database(postgres, name, proxy, upset.rng)

        async def disturb(cluster: Cluster) -> None:
            await crowd.until_flowing()
            await phases.upset_database(upset, cluster, crowd, database)

        try:
            sites = dict.fromkeys(("owner-0", "owner-1", "edge-0"), behind)
            result = await run_clients(ClusterOptions(tmp_path, url, sites=sites), crowd, disturb)
        finally:
            postgres.ensure_running()
    judged(result)
    assert len(upset.counts) == 5


async def test_an_owner_that_is_paused_for_longer_than_others_wait_goes_on(
    tmp_path: Path, archive_url: str
) -> None:
    """Nobody takes over: its sessions wait, and what it had in hand is still true afterwards."""
    paused = phase("pauses", 1)

    async def disturb(cluster: Cluster, crowd: Crowd) -> None:
        await phases.pause(paused, cluster, crowd)
        assert crowd.waits[-1] > 4

    judged(await run_crowd(tmp_path, few(archive_url), disturb, settings={"takeover-seconds": "0"}))


async def test_a_ring_that_changes_under_five_hundred_sessions_makes_none_wait_long(
    tmp_path: Path, archive_url: str
) -> None:
    """The soak holds the pauses to a second; here they are only bounded, on a machine that may be busy."""
    changing = phase("changes", 3)

    async def disturb(cluster: Cluster, crowd: Crowd) -> None:
        await phases.change(changing, cluster, crowd)
        assert len(crowd.waits) == 512
        assert crowd.waits[-1] < 20

    judged(await run_crowd(tmp_path, CrowdOptions(archive_url, rate=500.0), disturb, 3))


@pytest.mark.postgres
def test_a_network_that_is_cut_in_one_direction_or_both_loses_nothing(tmp_path: Path) -> None:
    """In network namespaces, by a program that has one to itself."""
    reason = network.missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(f"no network can be cut here: {reason}")
    chosen = {"kills": 0, "changes": 0, "pg-stops": 0, "pauses": 0, "failpoints": 0, "cuts": 6}
    chosen |= {"takeovers": 0, "losses": 0}
    run = subprocess.run(
        network.command(
            "tests.crash.soak_ring",
            *(f"--{name}={rounds}" for name, rounds in chosen.items()),
            "--archive=postgres",
            "--owners=2",
            "--cut-seconds-max=1",
            f"--directory={tmp_path}",
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "postgres cuts: 6 rounds" in run.stdout
    assert "0 lost, 0 duplicated, 0 reordered, 0 changed, 0 phantom, 0 gap" in run.stdout
