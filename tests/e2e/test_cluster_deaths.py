"""An owner that dies at each step of starting, flushing, giving slots up and taking them: nothing is lost.

Half of the steps on each archive; `make soak-ring` takes them all on both.
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.cluster import Cluster
from storage import FAILPOINTS
from storage.failpoints import TRANSACTIONS
from tests.crash import dying
from tests.crash.cluster import run_crowd, until_served
from tests.crash.crowd import Crowd, CrowdOptions
from tests.crash.rounds import CrashResult
from tests.docs.markdown import read_page, table

ROOT = Path(__file__).parent.parent.parent


def half(points: Sequence[str], archive: str) -> Sequence[str]:
    return points[archive.startswith("sqlite") :: 2]


def few(archive: str) -> CrowdOptions:
    return CrowdOptions(archive, sessions=48, connections=3, rate=150.0, followed=4)


def judged(result: CrashResult) -> None:
    assert result.findings.ok, result.findings.examples
    assert 100 < result.acknowledged == result.replayed == result.archived
    assert result.reconnects == 0


@pytest.mark.timeout(180)
async def test_an_owner_that_dies_at_any_step_of_a_start_or_a_flush_loses_nothing(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(cluster: Cluster, crowd: Crowd) -> None:
        deaths = dying.Deaths(cluster, cluster.owners[0], random.Random(1))
        await deaths.die_while_serving(half(dying.STARTING + dying.FLUSHING, archive_url))
        await until_served(cluster)
        await crowd.until_flowing()

    judged(await run_crowd(tmp_path, few(archive_url), disturb))


@pytest.mark.timeout(180)
async def test_an_owner_that_dies_at_any_step_of_a_handoff_or_a_claim_loses_nothing(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(cluster: Cluster, crowd: Crowd) -> None:
        deaths = dying.Deaths(cluster, cluster.owners[0], random.Random(3))
        await deaths.die_while_leaving(half(dying.LEAVING, archive_url))
        await crowd.until_flowing()
        await deaths.die_while_coming(half(dying.COMING, archive_url))
        await until_served(cluster)
        await crowd.until_flowing()

    judged(await run_crowd(tmp_path, few(archive_url), disturb))


@pytest.mark.timeout(180)
@pytest.mark.postgres
async def test_an_owner_that_dies_at_any_step_of_taking_over_loses_nothing(
    tmp_path: Path, postgres_url: str
) -> None:
    async def disturb(cluster: Cluster, crowd: Crowd) -> None:
        deaths = dying.Deaths(cluster, cluster.owners[0], random.Random(5))
        await deaths.die_while_taking_over(dying.TAKING_OVER[1::2], cluster.owners[1])
        await until_served(cluster)
        await crowd.until_flowing()

    settings = {"takeover-seconds": "2"}
    judged(await run_crowd(tmp_path, few(postgres_url), disturb, settings=settings))


def test_every_failpoint_in_the_code_is_in_the_table_and_none_else() -> None:
    rows = table(read_page("faults.md"), "Failpoints", "failpoint").rows
    sources = [
        path.read_text() for name in ("storage", "runtime") for path in (ROOT / name).glob("*.py")
    ]
    reached = [
        name for source in sources for name in re.findall(r'\bfailpoint\("([a-z.]+)"\)', source)
    ]
    for name in TRANSACTIONS:
        named = (ROOT / "storage" / "archive.py").read_text().count(f'"{name}"')
        reached += [f"{name}.written", f"{name}.committed"] * named

    assert sorted(reached) == sorted(FAILPOINTS)
    assert sorted(row["failpoint"].strip("`") for row in rows) == sorted(FAILPOINTS)


def test_every_failpoint_is_where_an_owner_is_made_to_die() -> None:
    led_to = {*dying.STARTING, *dying.FLUSHING, *dying.LEAVING, *dying.COMING, *dying.TAKING_OVER}

    assert led_to == FAILPOINTS
