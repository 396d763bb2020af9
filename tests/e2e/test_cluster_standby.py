"""PostgreSQL's primary is lost, and its synchronous standby takes its place, under load."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from bench.cluster import Cluster
from tests.crash.cluster import run_crowd, until_served
from tests.crash.crowd import Crowd, CrowdOptions
from tests.crash.standby import open_pair
from tests.e2e.test_cluster_deaths import judged

pytestmark = pytest.mark.postgres

FAILOVERS = 5
"""Each server is lost, and again after it came back as a standby."""


@pytest.mark.timeout(300)
async def test_a_primary_that_is_lost_takes_nothing_with_it(tmp_path: Path) -> None:
    async def disturb(cluster: Cluster, crowd: Crowd) -> None:
        for number in range(FAILOVERS):
            if number:
                await in_thread(pair.follow)
                await crowd.until_flowing()
            await in_thread(pair.fail_over)
            await crowd.until_flowing()
        await until_served(cluster)

    async def in_thread(call: Callable[[], object]) -> None:
        await trio.to_thread.run_sync(lambda: thread.submit(call).result())

    # The servers die with the thread that started them: one that lives as long as the test.
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        manager = open_pair()
        pair = thread.submit(manager.__enter__).result()
        stack.callback(lambda: thread.submit(manager.__exit__, None, None, None).result())
        url = pair.url(pair.primary.create_database())
        options = CrowdOptions(url, sessions=48, connections=3, rate=150.0, followed=4)
        judged(await run_crowd(tmp_path, options, disturb))
        assert pair.failovers == FAILOVERS
