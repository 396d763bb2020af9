"""What the runtime is opened with, from the options of the server."""

from collections.abc import Callable

import structlog
import trio

from edge.config import Config
from edge.values import Address
from runtime import ClusterOptions, LinkTls, Node, NodeOptions
from storage import REPLICATED, LogOptions, Place

log = structlog.get_logger()


def node_options(config: Config, link: trio.SocketListener | None) -> NodeOptions:
    """Return what a node is opened with; `link` is where its links end."""
    place = None
    if config.link is not None and link is not None:
        port = link.socket.getsockname()[1]
        patience = config.takeover_seconds if config.durability == REPLICATED else 0.0
        place = Place(
            str(Address(config.link.host, port)), config.weight, patience_ms=int(patience * 1_000)
        )
    first_segment_bytes = min(LogOptions().first_segment_bytes, config.segment_bytes)
    return NodeOptions(
        data_dir=config.data,
        durability=config.durability,
        log=LogOptions(
            segment_bytes=config.segment_bytes,
            first_segment_bytes=first_segment_bytes,
            sync_delay_ms=config.sync_delay_ms,
            retention_seconds=config.retention_seconds,
            retention_bytes=config.retention_bytes,
        ),
        unflushed_bytes_max=config.unflushed_bytes_max,
        idle_seconds=config.idle_seconds,
        place=place,
    )


def cluster_options(
    config: Config,
    node: Node | None,
    link: trio.SocketListener | None,
    tls: LinkTls | None,
    waiting: Callable[[], None],
) -> ClusterOptions:
    """Return how it takes part in a cluster, and have the log tell what it meets there."""
    return ClusterOptions(
        idle_seconds=config.idle_seconds,
        node_id="" if node is None else node.flusher.node_id,
        listener=link,
        tls=tls,
        link_failed=_tell_link_failed,
        taken_over=_tell_taken_over,
        waiting=waiting,
    )


def _tell_taken_over(node_id: str, outcome: int | Exception) -> None:
    if isinstance(outcome, int):
        log.warning("taken_over", node_id=node_id, slots=outcome)
    else:
        log.error("takeover_failed", node_id=node_id, reason=str(outcome))


def _tell_link_failed(peer: str, error: Exception) -> None:
    code, hint = getattr(error, "code", ""), getattr(error, "hint", "")
    if code:
        log.warning("link_refused", peer=peer, code=code, reason=str(error), hint=hint)
    else:
        log.error("link_failed", peer=peer, exc_info=error)
