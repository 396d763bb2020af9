import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import tour
from bench.program import app
from bench.report import read_report
from bench.tour import LONG, SHORT, THOROUGH, Stop, run_tour


@pytest.mark.parametrize("stop", [*SHORT, *THOROUGH, *LONG], ids=lambda stop: stop.arguments)
def test_every_stop_is_a_command_with_options_that_it_has(stop: Stop) -> None:
    """`--help` at the end is answered only when everything before it was understood."""
    result = CliRunner().invoke(app, [*shlex.split(stop.arguments), "--json", "x", "--help"])
    assert result.exit_code == 0, result.output


def test_a_tour_writes_a_file_for_each_stop_and_names_those_that_failed(tmp_path: Path) -> None:
    stops = (
        Stop("well", "append --connections 1 --seconds 0.1"),
        Stop("badly", "append --connections 2 --sessions 1"),
    )
    assert run_tour(stops, set(), tmp_path, tmp_path) == ["badly"]
    assert read_report(tmp_path / "well.json").ok
    assert not (tmp_path / "badly.json").exists()


def test_only_what_is_named_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(command: list[str]) -> int:
        ran.append(command[3])
        return 0

    monkeypatch.setattr(tour, "_run", run)
    assert run_tour(SHORT, {"mixed"}, tmp_path, None) == []
    assert ran == ["mixed"]


def test_an_unknown_stop_is_refused_with_the_names_of_those_there_are() -> None:
    result = CliRunner().invoke(app, ["tour", "--only", "nowhere"])
    assert result.exit_code == 2
    assert "append-64x1" in result.output


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ([], SHORT),
        (["--thorough"], THOROUGH),
        (["--long"], LONG),
        (["--thorough", "--long"], THOROUGH + LONG),
    ],
)
def test_a_tour_is_as_long_as_it_is_asked_to_be(
    options: list[str], first: tuple[Stop, ...]
) -> None:
    result = CliRunner().invoke(app, ["tour", *options, "--only", "nowhere"])
    assert result.output.split("there are ")[1].strip().replace("\n", " ").split(", ") == [
        stop.name for stop in first
    ]
