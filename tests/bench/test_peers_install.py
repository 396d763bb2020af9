"""What is installed to compare with has a fixed version, and nothing of it runs while it is installed."""

import re
import shlex
import subprocess
from pathlib import Path

from bench.peers.program import INSTALL_COMMAND

SCRIPT = Path(__file__).parent.parent.parent / INSTALL_COMMAND


def test_every_package_has_a_fixed_version() -> None:
    lists = re.findall(r'^(python|node)_packages="(.*)"$', SCRIPT.read_text(), re.MULTILINE)
    assert [kind for kind, _ in lists] == ["python", "node"]
    for kind, words in lists:
        pin = r"[a-z-]+==[0-9.]+" if kind == "python" else r"(@[a-z-]+/)?[a-z-]+@[0-9.]+"
        assert [word for word in shlex.split(words) if not re.fullmatch(pin, word)] == []


def test_no_package_runs_anything_while_it_is_installed() -> None:
    text = SCRIPT.read_text()
    assert "--only-binary :all:" in text
    assert "--ignore-scripts" in text


def test_the_script_is_one() -> None:
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True)
