"""The program as a process of its own, with standard streams that do not take or give what they should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge.server_process import ROOT

RINGLOG = f"{sys.executable} -P -m edge"
AWAY = "--url http://127.0.0.1:9"


def shell(line: str, tmp_path: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of shell; `ringlog` is the program, and `$code` what it exited with."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    script = f'ringlog() {{ {RINGLOG} "$@"; echo "code $?" >&2; }}\n{line}'
    return subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )  # fmt: skip


@pytest.mark.parametrize("command", ["config show", "config show --json", "--help", "--version"])
def test_a_reader_that_leaves_early_is_no_failure(tmp_path: Path, command: str) -> None:
    done = shell(f"ringlog {command} | true", tmp_path)

    assert done.stderr == "code 0\n"


@pytest.mark.parametrize("target", ["> /dev/full", ">&-"])
@pytest.mark.parametrize("command", ["config show", "config show --json", "--version"])
def test_an_output_that_cannot_be_written_is_one_line_and_exit_code_1(
    tmp_path: Path, command: str, target: str
) -> None:
    lines = shell(f"ringlog {command} {target}", tmp_path).stderr.splitlines()

    assert "cannot write the output: " in lines[0]
    assert lines[-1] == "code 1"
    assert len(lines) <= 3


def test_nobody_to_tell_about_a_failure_leaves_its_exit_code(tmp_path: Path) -> None:
    for target in ("2> /dev/full", "2>&-"):
        done = shell(f"{RINGLOG} health {AWAY} {target}; echo $?", tmp_path)
        assert done.stdout == "4\n"


def test_a_closed_stdin_is_one_line(tmp_path: Path) -> None:
    done = shell(f"ringlog session send demo - -u alice {AWAY} <&-", tmp_path)

    assert done.stderr.startswith("ringlog: cannot read stdin: Bad file descriptor\n")
    assert done.stderr.endswith("\ncode 1\n")
    assert len(done.stderr.splitlines()) <= 3


def test_what_is_not_utf_8_is_one_line_and_not_sent(tmp_path: Path) -> None:
    argument = shell(f"ringlog session show \"$(printf '\\377')\" {AWAY} --json", tmp_path)
    stdin = shell(f"printf '\\377\\376' | ringlog session send demo - -u alice {AWAY}", tmp_path)

    error = json.loads(argument.stderr.splitlines()[0])["error"]
    assert (error["code"], error["message"]) == ("usage", "argument 3 is not valid UTF-8: \\xff")
    assert argument.stderr.endswith("\ncode 2\n")
    assert "the input is not text in utf-8" in stdin.stderr
    assert stdin.stderr.endswith("\ncode 1\n")


def test_what_has_no_place_in_the_encoding_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "ringlog.toml").write_text('data = "données"')

    done = shell("ringlog config show", tmp_path, PYTHONIOENCODING="ascii")

    assert "data\tdonn\\xe9es\tfile" in done.stdout
    assert done.stderr == "code 0\n"
