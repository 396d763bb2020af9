import ast
import inspect
from dataclasses import fields

import edge.limits
from edge.limits import RESERVED_DESCRIPTORS, Limits, connections_allowed


def test_connections_are_bounded_by_what_the_process_may_open() -> None:
    limits = Limits(connections_max=10_000)
    assert connections_allowed(limits, 1 << 20) == 10_000
    assert connections_allowed(limits, 1024) == 1024 - RESERVED_DESCRIPTORS
    assert connections_allowed(limits, 10) == 1


def test_every_limit_states_its_reason() -> None:
    lines = inspect.getsource(edge.limits).splitlines()
    tree = ast.parse("\n".join(lines))
    limits = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    for statement in limits.body:
        if isinstance(statement, ast.AnnAssign):
            assert lines[statement.lineno - 2].strip().startswith("#"), lines[statement.lineno - 1]


def test_every_limit_has_its_unit_last() -> None:
    endings = ("_max", "_seconds", "_ms", "_default")
    for field in fields(Limits):
        assert field.name.endswith(endings), field.name


def test_the_limits_agree_with_each_other() -> None:
    limits = Limits()
    assert limits.message_bytes_max < limits.body_bytes_max
    assert limits.message_bytes_max < limits.connection_buffer_bytes_max
    assert limits.heartbeat_seconds * 2 < limits.idle_timeout_seconds
    assert limits.page_rows_default <= limits.page_rows_max
    assert limits.token_ttl_seconds_default <= limits.token_ttl_seconds_max
