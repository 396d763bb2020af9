"""docs/agents.md against the code: fields, types, ranges and commands are complete."""

import re
from pathlib import Path
from typing import Any

import msgspec
import typer

from agents import CHOICES, RANGES, TYPES, CreateAgent
from agents.agent import (
    METADATA_BYTES_MAX,
    MODEL_LENGTH_MAX,
    NEEDS,
    SYSTEM_BYTES_MAX,
    TAKES,
    URL_LENGTH_MAX,
)
from agents.callerror import CALL_ERRORS
from agents.sealed import (
    HEADER_VALUE_BYTES_MAX,
    HEADERS_BYTES_MAX,
    HEADERS_MAX,
    RESERVED_HEADERS,
    SIGNING_BYTES,
)
from edge.cli.program import build
from edge.http_bodies import Agent
from runtime import DEPTH_MAX
from tests.docs.markdown import plain, read_page, spans, table

PAGE = read_page("agents.md")
ROOT = Path(__file__).parent.parent.parent


def test_every_field_is_in_the_table_with_its_default() -> None:
    rows = {plain(row["field"]): row for row in table(PAGE, "Fields", "field").rows}
    fields = {each.name: each for each in msgspec.structs.fields(CreateAgent)}
    assert list(rows) == list(CreateAgent.__struct_fields__)
    for name, each in fields.items():
        stated = plain(rows[name]["default"]).replace(",", "")
        if each.required:
            assert stated == "required"
        elif isinstance(each.default, int | str):
            assert stated == str(each.default), name
        assert rows[name]["meaning"]


def test_every_range_and_choice_is_the_codes() -> None:
    rows = {plain(row["field"]): row["allowed"] for row in table(PAGE, "Fields", "field").rows}
    for name, (low, high) in RANGES.items():
        assert rows[name] == f"{low:,} to {high:,}"
    for name, choices in CHOICES.items():
        assert spans(rows[name]) == list(choices)
    for text in (
        f"at most {URL_LENGTH_MAX:,} characters",
        f"1 to {MODEL_LENGTH_MAX} characters",
        f"text of at most {SYSTEM_BYTES_MAX:,} bytes",
        f"any JSON, at most {METADATA_BYTES_MAX:,} bytes, nested at most {DEPTH_MAX} deep",
        f"At most {HEADERS_MAX} of them, {HEADERS_BYTES_MAX:,} bytes together",
        f"1 to {HEADER_VALUE_BYTES_MAX:,} characters of visible",
        f"{SIGNING_BYTES[0]} to {SIGNING_BYTES[1]} random bytes",
    ):
        assert text in PAGE, text
    reserved = spans(re.findall(r"cannot be set: (.*?) and the like", PAGE, re.DOTALL)[0])
    assert {name.lower() for name in reserved} <= RESERVED_HEADERS


def test_every_type_says_what_it_needs_and_takes() -> None:
    rows = {plain(row["type"]): row for row in table(PAGE, "Types", "type").rows}
    assert list(rows) == list(TYPES)
    for name, row in rows.items():
        needs, takes = spans(row["needs"]), spans(row["takes too"])
        assert tuple(needs) == NEEDS.get(name, ())
        secret = {"headers", "signing_secret"}
        assert {*needs, *takes} - secret == set(TAKES.get(name, ()))


def test_what_is_read_beside_the_fields_is_named() -> None:
    shown = set(Agent.__struct_fields__) - set(CreateAgent.__struct_fields__)
    assert {f"`{name}`" for name in shown} <= set(re.findall(r"`[a-z_]+`", PAGE))


def test_the_commands_that_are_shown_exist() -> None:
    program: Any = typer.main.get_command(build())
    commands = program.commands["agent"].commands
    for line in re.findall(r"ringlog agent ([a-z]+ ?[^`\n]*)", PAGE):
        verb = line.split()[0]
        flags = {flag for parameter in commands[verb].params for flag in parameter.opts}
        assert set(re.findall(r" (--[a-z-]+)", line)) <= flags, line


def test_every_code_of_a_dispatch_is_in_the_table() -> None:
    rows = table(PAGE, "What can go wrong", "code").rows
    documented = {code for row in rows for code in spans(row["code"])}
    sources = [*(ROOT / "agents").glob("answer*.py"), ROOT / "agents/assembler.py"]
    sources += [ROOT / "agents" / f"{name}.py" for name in ("lines", "openai", "uichunks")]
    answers = {
        code for source in sources for code in re.findall(r'"(answer_[a-z_]+)"', source.read_text())
    }
    worker = (ROOT / "agents/worker.py").read_text() + (ROOT / "agents/engine.py").read_text()
    own = set(
        re.findall(
            r'"(agent_[a-z_]+|owner_lost|stopped|interrupted|internal|nothing_to_answer)"', worker
        )
    )

    assert answers
    assert documented >= set(CALL_ERRORS) | answers | own - {"agent_not_disabled"}
