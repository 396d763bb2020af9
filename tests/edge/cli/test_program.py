import json
import re
import subprocess
import sys

import pytest

from edge.version import VERSION
from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import ROOT


def test_a_wrong_option_is_exit_code_2_and_names_itself(ringlog: Ringlog) -> None:
    result = ringlog("config", "show", "--listen", "nonsense")

    assert result.code == 2
    assert "listen = 'nonsense' (from flag --listen)" in result.err
    assert ringlog("serv").code == 2
    assert ringlog("session", "tail").code == 2


def test_every_command_has_an_example_in_its_help(ringlog: Ringlog) -> None:
    commands = [
        *(("session", name) for name in ("list", "show", "send", "tail", "export", "chat")),
        *(("log", name) for name in ("dump", "verify", "repair")),
        *(("agent", name) for name in ("list", "show", "add", "edit", "remove", "rotate")),
        *(("key", name) for name in ("create", "list", "revoke")),
        ("serve",), ("doctor",), ("health",), ("config", "show"), ("flush", "status"),
    ]  # fmt: skip

    for command in commands:
        help_text = ringlog(*command, "-h")
        assert help_text.code == 0
        assert f"  ringlog {' '.join(command)}" in help_text.out, command
        assert not re.search(r"--[a-z-]+ <", help_text.out), command  # a type is no placeholder


@pytest.mark.parametrize("arguments", [["--help"], ["session", "show", "--help"], ["nonsense"]])
def test_the_program_is_called_ringlog_however_it_is_run(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )  # fmt: skip

    assert (done.stdout or done.stderr).startswith("Usage: ringlog ")
    assert "python" not in done.stdout + done.stderr


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'trio', 'sqlalchemy', 'quart', 'structlog', 'msgspec', 'rich.console', 'websockets'}"
    program = f"from edge.cli.program import build; build(); import sys; print({heavy} & set(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout == "set()\n"


def test_it_tells_its_version(ringlog: Ringlog) -> None:
    result = ringlog("--version")

    assert (result.code, result.out) == (0, f"ringlog {VERSION}\n")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["health", "--bogus", "--json"], "No such option: --bogus", "ringlog health -h"),
        (["session", "show", "--json"], "Missing argument 'SESSION'.", "ringlog session show -h"),
        (["bogus", "--json"], "No such command 'bogus'.", "ringlog -h"),
        (["serve", "--json"], "No such option: --json", "--log-format json"),
        (["config", "show", "--listen", "x", "--json"], "listen = 'x'", ""),
    ],
)
def test_a_usage_error_is_json_where_json_was_asked_for(
    ringlog: Ringlog, arguments: list[str], message: str, hint: str
) -> None:
    result = ringlog(*arguments)

    error = json.loads(result.err)["error"]
    assert (result.code, result.out) == (2, "")
    assert message in error["message"]
    assert hint in error["hint"]
