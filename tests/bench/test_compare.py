import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from bench.commands.compare import compare, print_comparison
from bench.compare import (
    CompareError,
    Comparison,
    Difference,
    Judgement,
    VerdictError,
    compare_reports,
)
from bench.report import Better, Figure, Report, write_json
from tests.bench.reports import ENVIRONMENT, at, latencies, report

FAST = (14_000, 14_100, 14_200, 14_300)
SLOW = (12_000, 12_100, 12_200, 12_300)


def difference(comparison: Comparison, name: str) -> Difference:
    return next(each for each in comparison.differences if each.name == name)


def judge(
    a: tuple[float, ...], b: tuple[float, ...], better: Better, threshold: float = 0.03
) -> Difference:
    """Compare one figure of two runs that are otherwise the same."""
    first, second = (
        report(
            [10_000.0] * len(values),
            figures=[[Figure("figure", value, "x", better)] for value in values],
        )
        for values in (a, b)
    )
    return difference(compare_reports(first, second, threshold), "figure")


@pytest.mark.parametrize(
    ("better", "judgement"),
    [(Better.HIGHER, Judgement.BETTER), (Better.LOWER, Judgement.WORSE)],
)
def test_which_way_a_figure_improves_decides_what_a_rise_is(
    better: Better, judgement: Judgement
) -> None:
    rise = judge(SLOW, FAST, better)
    assert rise.judgement is judgement
    assert rise.p == pytest.approx(2 / 70)
    assert not rise.weak
    assert rise.ratio == pytest.approx(14_150 / 12_150)
    assert (rise.a.median, rise.a.low, rise.a.high, rise.a.rounds) == (12_150, 12_000, 12_300, 4)
    assert judge(FAST, SLOW, better).judgement is not judgement


def test_rounds_that_lie_among_each_other_are_noise() -> None:
    noise = judge((100, 120, 90, 130), (105, 140, 95, 125), Better.HIGHER)
    assert noise.judgement is Judgement.NO_DIFFERENCE
    assert noise.p is not None
    assert noise.p > 0.5


def test_a_difference_below_the_threshold_is_none_however_sure() -> None:
    before, after = (1000, 1001, 1002, 1003), (1020, 1021, 1022, 1023)
    assert judge(before, after, Better.HIGHER).judgement is Judgement.NO_DIFFERENCE
    assert judge(before, after, Better.HIGHER, 0.01).judgement is Judgement.BETTER


def test_with_three_rounds_each_ranges_that_do_not_overlap_are_weak_evidence() -> None:
    apart = judge((100, 101, 102), (110, 111, 112), Better.LOWER)
    assert (apart.judgement, apart.weak, apart.p) == (Judgement.WORSE, True, None)
    touching = judge((100, 101, 111), (110, 112, 113), Better.LOWER)
    assert (touching.judgement, touching.weak) == (Judgement.NO_DIFFERENCE, False)


def test_three_rounds_beside_five_are_enough_for_the_test() -> None:
    found = judge((100, 101, 102), (110, 111, 112, 113, 114), Better.LOWER)
    assert (found.judgement, found.weak) == (Judgement.WORSE, False)
    assert found.p == pytest.approx(2 / 56)


def test_two_rounds_tell_nothing() -> None:
    found = judge((100, 101), (200, 201, 202, 203), Better.LOWER)
    assert found.judgement is Judgement.CANNOT_TELL


def test_what_is_no_goal_is_not_judged() -> None:
    found = judge(SLOW, FAST, Better.NEITHER)
    assert found.judgement is None
    assert not found.weak
    assert found.ratio == pytest.approx(14_150 / 12_150)


def test_a_figure_that_was_zero_has_no_ratio_and_is_judged() -> None:
    found = judge((0, 0, 0, 0), (1, 2, 3, 4), Better.LOWER)
    assert (found.ratio, found.judgement) == (None, Judgement.WORSE)
    assert judge((0, 0, 0, 0), (0, 0, 0, 0), Better.LOWER, 0).judgement is Judgement.NO_DIFFERENCE


def test_each_percentile_of_a_latency_is_judged_in_milliseconds() -> None:
    quick = [latencies(seed, median_ms=4) for seed in range(4)]
    slow = [latencies(seed, median_ms=8) for seed in range(4)]
    found = compare_reports(report(FAST, acks=quick), report(FAST, acks=slow))
    for percentile in ("p50", "p90", "p99", "p999"):
        one = difference(found, f"ack {percentile}")
        assert (one.judgement, one.unit) == (Judgement.WORSE, "ms")
        assert one.ratio == pytest.approx(2, rel=0.02)
    assert found.count(Judgement.WORSE) == 5


def test_a_figure_in_one_report_only_is_named_and_not_compared() -> None:
    more = report(FAST, figures=[[Figure("replay", 1.0, "s")]] * 4)
    found = compare_reports(report(FAST), more)
    assert "replay" not in {each.name for each in found.differences}
    assert found.warnings == ["only in B: replay"]


def test_a_figure_that_changed_its_unit_is_another_one() -> None:
    before = report(FAST, figures=[[Figure("start", 1.0, "s")]] * 4)
    after = report(FAST, figures=[[Figure("start", 1000.0, "ms")]] * 4)
    assert compare_reports(before, after).warnings == ["only in A: start", "only in B: start"]


def test_another_scenario_is_not_compared() -> None:
    with pytest.raises(CompareError, match=r"'append'.*'storm'"):
        compare_reports(report(), report(scenario="storm"))


def test_a_failed_verdict_is_not_compared_and_says_what_was_lost() -> None:
    failed = report(verdict={"lost": 2, "repeated": 0, "ok": False})
    with pytest.raises(VerdictError, match=r"^B failed its verdict \(lost 6\)"):
        compare_reports(report(), failed)


def test_what_should_be_equal_and_is_not_is_named() -> None:
    here = report(config={"connections": 64, "url": None})
    there = report(
        config={"connections": 50, "bytes": 200},
        environment=at(
            kernel="6.6.0",
            cores=8,
            commit="def5678",
            load=3.0,
            versions={"trio": "0.36", "sqlite": "3.50"},
        ),
    )
    assert compare_reports(here, there).warnings == [
        "config connections: A has 64, B has 50",
        "config url: A has None, B has nothing",
        "config bytes: A has nothing, B has 200",
        "cores: A ran on 2, B on 8",
        "kernel: A ran on 6.1.0, B on 6.6.0",
        "trio: A ran on 0.35, B on 0.36",
        "sqlite: A ran on nothing, B on 3.50",
    ]


@pytest.mark.parametrize(("other", "doubtful"), [(0.12, False), (0.13, True), (0.08, True)])
def test_another_state_of_the_disk_makes_a_comparison_doubtful(
    other: float, *, doubtful: bool
) -> None:
    for a, b in ((0.1, other), (other, 0.1)):
        warnings = compare_reports(report(sync_p50=a), report(sync_p50=b)).warnings
        assert bool(warnings) is doubtful
        assert all("fdatasync" in warning and "doubtful" in warning for warning in warnings)


def test_another_commit_is_what_one_compares() -> None:
    found = compare_reports(report(), report(environment=at(commit="def5678")))
    assert (found.commit_a, found.commit_b) == (ENVIRONMENT.commit, "def5678")
    assert found.warnings == []


# The command


def stored(directory: Path, name: str, made: Report) -> str:
    path = directory / name
    write_json(made, path)
    return str(path)


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(compare)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_the_table_names_each_judgement_and_what_it_rests_on(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a.json", report(SLOW)), stored(tmp_path, "b.json", report(FAST))
    code, out, _ = run(a, b)
    rate = next(line for line in out.splitlines() if line.strip().startswith("rate"))
    assert code == 0
    for part in ("12,150 (12,000–12,300)", "14,150 (14,000–14,300)", "1.16", "0.029", "better"):
        assert part in rate
    assert "exact Mann–Whitney test" in out


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_window(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    figures = [[Figure("archive lag p99", 1.5, "s"), Figure("[bold]", 1.5, "s")]] * 3
    a, b = report(SLOW[:3], figures=figures), report(FAST[:3], figures=figures)
    console = Console(width=columns, force_terminal=True, color_system=None, highlight=False)
    print_comparison(compare_reports(a, b), console)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    # No name is cut, no name is markup, and a median is never torn.
    for whole in ("archive lag p99 s", "[bold] s", "12,100", "better (weak)"):
        assert any(whole in line for line in lines)
    assert any(line.startswith("weak: ") for line in lines)


def test_worse_fails_only_when_asked_to(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a.json", report(FAST)), stored(tmp_path, "b.json", report(SLOW))
    assert run(a, b)[0] == 0
    assert run(a, b, "--fail-on-worse")[0] == 1
    assert run(b, a, "--fail-on-worse")[0] == 0
    assert run(a, b, "--fail-on-worse", "--threshold", "80")[0] == 0


def test_json_on_stdout_is_all_there_is(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a.json", report(SLOW)), stored(tmp_path, "b.json", report(FAST))
    code, out, _ = run(a, b, "--json", "-")
    rate = json.loads(out)["differences"][0]
    assert (code, rate["name"], rate["judgement"]) == (0, "rate", "better")


def test_a_file_that_cannot_be_written_is_one_line_too(tmp_path: Path) -> None:
    a = stored(tmp_path, "a.json", report())
    code, out, err = run(a, a, "--json", str(tmp_path))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "give another file to --json" in err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), (b"{", "not a report"), (b"{}", "not a report")],
)
def test_a_file_that_is_no_report_is_one_line_with_what_to_do(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    good, bad = stored(tmp_path, "a.json", report()), tmp_path / "bad.json"
    if content is not None:
        bad.write_bytes(content)
    code, out, err = run(good, str(bad))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert str(bad) in err
    assert complaint in err
    assert "give a file that --json wrote" in err


def test_exit_codes_tell_a_broken_promise_from_a_wrong_question(tmp_path: Path) -> None:
    good = stored(tmp_path, "a.json", report())
    failed = stored(tmp_path, "b.json", report(verdict={"lost": 1, "ok": False}))
    other = stored(tmp_path, "c.json", report(scenario="storm"))
    assert run(good, failed)[0] == 1
    assert run(good, other)[0] == 2


def test_what_only_some_rounds_have_is_compared_and_named() -> None:
    extra = [[Figure("memory", 100.0, "MiB")], [], [Figure("memory", 102.0, "MiB")]]
    partial, whole = report(figures=extra), report(figures=[extra[0]] * 3)
    partial.failures = ["round 4 of 4 failed: it hung up"]
    made = compare_reports(partial, whole)
    (memory,) = [each for each in made.differences if each.name == "memory"]
    assert (memory.a.rounds, memory.b.rounds) == (2, 3)
    assert made.warnings == [
        "A: round 4 of 4 failed: it hung up",
        "A has memory in 2 of 3 rounds",
    ]
