import errno
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import structlog

from edge.logging import configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_a_pipe_gets_one_json_object_a_line() -> None:
    out = io.StringIO()
    configure_logging("info", "auto", out)

    structlog.get_logger().info("flushed", rows=5, archive="sqlite")

    line = orjson.loads(out.getvalue())
    assert list(line) == ["at", "level", "event", "rows", "archive"]
    assert line["event"] == "flushed"
    assert line["at"].endswith("Z")


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_line_that_cannot_be_written_is_dropped() -> None:
    with Path("/dev/full").open("w") as full:
        for out in (Full(), full):
            configure_logging("info", "json", out)
            structlog.get_logger().info("flushed", rows=5)
            logging.getLogger("quart").error("said by a library")


def test_a_terminal_gets_a_line_for_people() -> None:
    out = Terminal()
    configure_logging("info", "auto", out)

    structlog.get_logger().warning("slow disk", seconds=0.5, path="a b")

    assert out.getvalue().split(" ", 1)[1] == 'warning slow disk  seconds=0.5 path="a b"\n'


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_nothing_a_client_sends_breaks_a_line_or_drives_a_terminal(form: str) -> None:
    out = io.StringIO()
    configure_logging("info", form, out)

    structlog.get_logger().info("refused", sender="\x1b[2J\r\nforged \x9b \u2028 \x00 \udc00")

    text = out.getvalue()
    assert text.count("\n") == 1
    assert not any(character in text for character in "\x1b\r\x9b\u2028\x00\udc00")
    assert "forged" in text


def test_what_is_below_the_level_is_not_written() -> None:
    out = io.StringIO()
    configure_logging("warning", "json", out)

    structlog.get_logger().info("quiet")

    assert out.getvalue() == ""


def test_an_exception_stays_within_its_json_line() -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)

    structlog.get_logger().error("failed", exc_info=ValueError("two\nlines"))

    assert out.getvalue().count("\n") == 1
    assert "ValueError: two" in orjson.loads(out.getvalue())["exception"]


def test_the_libraries_lines_take_the_same_way_out() -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)

    logging.getLogger("hypercorn.error").warning("odd %s", "request\n")
    logging.getLogger("hypercorn.error").info("not for operators")

    line = orjson.loads(out.getvalue())
    assert (line["event"], line["logger"]) == ("odd request\n", "hypercorn.error")
