"""A short crash run in every test run; `python -m tests.crash` is the long one."""

from pathlib import Path

import pytest

from tests.crash.rounds import CrashOptions, run_crash

ROUNDS = 8
"""Enough to hit a commit, a flush and a recovery, in a few seconds."""


@pytest.mark.timeout(180)
async def test_kills_at_random_instants_lose_and_change_nothing(
    tmp_path: Path, archive_url: str
) -> None:
    result = await run_crash(CrashOptions(ROUNDS, seed=1, directory=tmp_path, archive=archive_url))
    assert result.ok, result
    assert result.kills == ROUNDS
    assert result.reconnects > 0
    assert result.acknowledged <= result.replayed == result.archived
