import trio.testing

from runtime.links.handshake import HandshakeError
from runtime.links.reports import REMEMBERED_MAX, REPEAT_SECONDS, LinkReports


async def test_a_trouble_is_told_once_in_a_while(autojump_clock: trio.testing.MockClock) -> None:
    told: list[tuple[str, str]] = []
    reports = LinkReports(lambda peer, error: told.append((peer, str(error))))
    for _ in range(3):
        reports.refused("a", HandshakeError("link_secret", "first"))
        reports.refused("a", HandshakeError("link_slots", "another"))
        reports.refused("b", HandshakeError("link_secret", "elsewhere"))
    assert told == [("a", "first"), ("a", "another"), ("b", "elsewhere")]
    await trio.sleep(REPEAT_SECONDS)
    reports.refused("a", HandshakeError("link_secret", "again"))
    assert told[3:] == [("a", "again")]


async def test_a_bug_is_told_each_time() -> None:
    told: list[str] = []
    reports = LinkReports(lambda peer, _: told.append(peer))
    for _ in range(3):
        reports.failed("a", ZeroDivisionError())
    assert told == ["a", "a", "a"]


async def test_who_comes_from_many_places_is_not_remembered_for_ever() -> None:
    reports = LinkReports(lambda _peer, _error: None)
    for number in range(3 * REMEMBERED_MAX):
        reports.refused(f"10.0.0.{number}", HandshakeError("link_secret", "no"))
    assert len(reports._told_at) == REMEMBERED_MAX
