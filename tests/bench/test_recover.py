"""What is said of a recovery, and that a message which did not survive it would be seen."""

from pathlib import Path

import pytest

from bench.checker import Findings
from bench.loads.written import write_session
from bench.scenarios.recover import (
    Case,
    RecoverOptions,
    Recovery,
    check_all,
    recovery_figures,
    run_recover,
    session_lengths,
    settings_for,
)
from bench.scenarios.run import OptionsError
from tests.fakes.liar import Lie, honest, open_liar
from tests.fakes.lies import LIES, kinds_found


def found(lie: Lie) -> Findings:
    findings = Findings()
    with open_liar(lie) as url:
        check_all(url, [write_session(url, name, 5, 64) for name in "ab"], findings)
    return findings


def test_an_honest_server_has_a_clean_verdict() -> None:
    assert found(honest).ok


@pytest.mark.parametrize(("lie", "kinds"), LIES)
def test_a_lie_is_seen_in_every_session(lie: Lie, kinds: set[str]) -> None:
    assert kinds_found(found(lie).verdict(), at_least=2) == kinds


def test_each_case_has_its_times_and_the_large_archive_stands_beside_the_small_one() -> None:
    recoveries = {
        Case(0, 0): Recovery(records=0, ready=1.0, joined=1.1, acked=1.2),
        Case(0, 2_000): Recovery(records=0, ready=1.5, joined=1.6, acked=1.7),
    }
    assert {figure.name: figure.value for figure in recovery_figures(recoveries)} == {
        "ready with 0 MiB unflushed, 0 archived": 1.0,
        "joined with 0 MiB unflushed, 0 archived": 1.1,
        "acked with 0 MiB unflushed, 0 archived": 1.2,
        "waited with 0 MiB unflushed, 0 archived": 0,
        "ready with 0 MiB unflushed, 2,000 archived": 1.5,
        "joined with 0 MiB unflushed, 2,000 archived": 1.6,
        "acked with 0 MiB unflushed, 2,000 archived": 1.7,
        "waited with 0 MiB unflushed, 2,000 archived": 0,
        "ready with 0 MiB unflushed, large archive over small": 1.5,
    }


def test_one_archive_stands_beside_none() -> None:
    figures = recovery_figures({Case(16, 0): Recovery(9, 1.0, 1.1, 1.2)})
    assert [figure.name for figure in figures if "over" in figure.name] == []


def test_what_is_written_is_cut_into_sessions() -> None:
    assert list(session_lengths(25_000)) == [10_000, 10_000, 5_000]
    assert list(session_lengths(0)) == []


def test_the_limit_leaves_room_for_all_that_is_written() -> None:
    assert settings_for(Case(0, 0), 200) == {"unflushed-bytes-max": str(2**20)}
    # 16 MiB of lines of 1 KiB count a kibibyte more each.
    assert int(settings_for(Case(16, 0), 1024)["unflushed-bytes-max"]) >= 2 * 16 * 2**20
    assert int(settings_for(Case(10**6, 0), 200)["unflushed-bytes-max"]) == 64 * 2**30


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"archive": "postgresql://r@127.0.0.1/r"}, "fresh archive for each"),
        ({"unflushed": ()}, "one value each"),
        ({"history": ()}, "one value each"),
    ],
    ids=["url", "archive", "unflushed", "history"],
)
async def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, options: dict[str, str | tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(OptionsError, match=reason):
        await run_recover(RecoverOptions(directory=tmp_path, **options))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
