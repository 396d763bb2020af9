from pathlib import Path

import pytest

from bench.demo import DemoOptions, run_demo


@pytest.mark.timeout(180)
async def test_a_slice_of_the_demo_finds_everything_in_the_archive(
    tmp_path: Path, archive_url: str
) -> None:
    options = DemoOptions(tmp_path, archive_url, conversations=200)
    result = await run_demo(options)
    assert result.findings.ok, result.findings.examples
    assert result.kills == 2
    assert result.archived == result.messages > 5000
