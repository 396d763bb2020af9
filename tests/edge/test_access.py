import pytest

from edge.access import acting_user, check_owns, check_sees, check_token_names, session_owner
from edge.auth import SCOPES, USER_SCOPES, Principal, development_principal
from edge.errors import EdgeError
from runtime import SessionInfo, SessionNotFoundError

INFO = SessionInfo("s1", "alice", ("bob",), None, b"{}", "active", 0, 0, 1, b"{}")
SECRET = Principal("secret", "w", None, SCOPES)
ANYONE = Principal("development", "w", None, SCOPES)


def user(name: str, *sessions: str) -> Principal:
    return Principal("user", "w", name, USER_SCOPES, frozenset(sessions) if sessions else None)


@pytest.mark.parametrize(
    "principal", [SECRET, ANYONE, user("alice"), user("bob"), user("bob", "s1")]
)
def test_owner_members_and_backends_see_a_session(principal: Principal) -> None:
    check_sees(principal, INFO)


@pytest.mark.parametrize("principal", [user("eve"), user("alice", "s2"), user("eve", "s1")])
def test_for_everyone_else_it_is_not_there(principal: Principal) -> None:
    with pytest.raises(SessionNotFoundError, match="no session s1") as error:
        check_sees(principal, INFO)
    assert error.value.details == {"session": "s1"}


def test_a_limited_token_is_refused_before_the_session_is_looked_up() -> None:
    check_token_names(user("alice", "s1"), "s1")
    check_token_names(user("alice"), "s9")
    with pytest.raises(SessionNotFoundError):
        check_token_names(user("alice", "s1"), "s9")


def test_only_the_owner_and_backends_change_a_session() -> None:
    for principal in (SECRET, ANYONE, user("alice")):
        check_owns(principal, INFO)
    with pytest.raises(EdgeError) as error:
        check_owns(user("bob"), INFO)
    assert error.value.code == "forbidden"


def test_a_user_speaks_for_themselves() -> None:
    assert acting_user(user("alice"), None, field="sender") == "alice"
    assert acting_user(user("alice"), "alice", field="sender") == "alice"
    with pytest.raises(EdgeError) as error:
        acting_user(user("alice"), "bob", field="sender")
    assert (error.value.code, error.value.details) == ("forbidden", {"field": "sender"})


def test_a_backend_must_say_for_whom_it_speaks() -> None:
    assert acting_user(SECRET, "bob", field="sender") == "bob"
    with pytest.raises(EdgeError) as error:
        acting_user(SECRET, None, field="sender")
    assert (error.value.code, error.value.details) == ("missing_field", {"field": "sender"})
    with pytest.raises(EdgeError) as error:
        acting_user(SECRET, "a b", field="sender")
    assert error.value.code == "invalid_field"


def test_a_user_creates_sessions_of_their_own_and_only_those_the_token_names() -> None:
    assert session_owner(user("alice"), None, None) == "alice"
    assert session_owner(user("alice", "s1"), "s1", "alice") == "alice"
    for principal, session, owner in (
        (user("alice"), None, "bob"),
        (user("alice", "s1"), None, None),
        (user("alice", "s1"), "s2", None),
    ):
        with pytest.raises(EdgeError) as error:
            session_owner(principal, session, owner)
        assert error.value.code == "forbidden"


def test_no_user_is_taken_for_an_agent() -> None:
    for name in ("agent:bot", "agent:"):
        with pytest.raises(EdgeError) as refused:
            acting_user(SECRET, name, field="sender")
        assert (refused.value.code, refused.value.details["field"]) == ("invalid_field", "sender")
        with pytest.raises(EdgeError):
            session_owner(SECRET, "s", name)
        with pytest.raises(EdgeError):
            development_principal(name)
    assert acting_user(SECRET, "agent", field="sender") == "agent"
