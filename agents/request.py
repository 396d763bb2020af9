"""What a webhook is sent: one JSON object, as FleetLM's agents know it and a little more. Pure.

::

    {"session_id", "agent_id", "user_id", "workspace", "dispatch_id", "attempt",
     "messages": [{"seq", "id", "sender_id", "kind", "content", "metadata", "inserted_at"}, …]}
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from agents.history import Shown
from runtime import Dispatch


def encode_webhook(
    workspace: str, user_id: str, dispatch: Dispatch, history: Sequence[Shown]
) -> bytes:
    """Return the body. But for `attempt` it is the same in every attempt of a dispatch."""
    return msgspec.json.encode(
        {
            "session_id": dispatch.session,
            "agent_id": dispatch.agent_id,
            "user_id": user_id,
            "workspace": workspace,
            "dispatch_id": dispatch.dispatch,
            "attempt": dispatch.attempt,
            "messages": [_shown(each) for each in history],
        }
    )


def _shown(message: Shown) -> dict[str, Any]:
    return {
        "seq": message.seq,
        "id": message.id,
        "sender_id": message.sender,
        "kind": message.kind,
        "content": message.content,
        "metadata": message.metadata,
        "inserted_at": message.at,
    }
