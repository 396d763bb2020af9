from hypothesis import given
from hypothesis import strategies as st

from edge.printable import CONTROL, escape


@given(st.text(st.characters()))
def test_escaped_text_is_one_line_without_control_characters_and_is_utf_8(text: str) -> None:
    escaped = escape(text)

    assert CONTROL.search(escaped) is None
    assert len(escaped.splitlines()) <= 1
    escaped.encode()


def test_what_people_write_stays_as_it_is() -> None:
    assert escape("héllo, 世界 🎉 \\n") == "héllo, 世界 🎉 \\n"
    assert escape("\x1b[2J\n") == "\\u001b[2J\\u000a"
