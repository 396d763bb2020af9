"""The `ringlog` command as it is installed, in a process of its own."""

import subprocess
import sys
import tomllib

import pytest

from tests.edge.server_process import ROOT


def ringlog(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "bench.ringlog", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )


def test_it_has_the_commands_of_the_edge_and_demonstrations() -> None:
    listed = ringlog("--help")
    assert listed.returncode == 0
    assert listed.stdout.startswith("Usage: ringlog ")
    for command in ("serve", "ring", "demo"):
        assert f"\n  {command} " in listed.stdout


@pytest.mark.parametrize("name", ["crash", "drain"])
def test_each_demonstration_has_an_example_in_its_help(name: str) -> None:
    assert f"  ringlog demo {name}" in ringlog("demo", name, "-h").stdout


def test_one_that_is_not_there_is_a_wrong_command() -> None:
    done = ringlog("demo", "meltdown", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'meltdown'" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'trio', 'sqlalchemy', 'msgspec', 'websockets', 'rich.console', 'bench.demos'}"
    program = f"import bench.ringlog, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "set()\n"


def test_it_is_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"ringlog": "bench.ringlog:run"}
    assert "bench" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "-m bench.ringlog" in (ROOT / "bootstrap.sh").read_text()
