"""Who calls agents for the sessions of a node, as the sessions see it: `agents.engine` is one."""

from typing import TYPE_CHECKING, Protocol

from runtime.dispatch import Dispatch

if TYPE_CHECKING:
    from runtime.server import SessionServer


class Dispatcher(Protocol):
    """Who calls agents for the sessions of a node. Its methods return at once."""

    def message_came(self, server: "SessionServer") -> None:
        """A message that may concern the session's agent is being logged."""

    def dispatch_changed(self, server: "SessionServer", dispatch: Dispatch) -> None:
        """A dispatch's state is another one, and durable; or its session has become active with it."""

    def stop(self, server: "SessionServer") -> None:
        """Log the end of every open dispatch of the session."""


class NoDispatcher:
    """Calls nobody: dispatches stay as they are until somebody does."""

    def message_came(self, server: "SessionServer") -> None:
        """Nothing."""

    def dispatch_changed(self, server: "SessionServer", dispatch: Dispatch) -> None:
        """Nothing."""

    def stop(self, server: "SessionServer") -> None:
        """Nothing."""
