"""A route as a value, so that the table of routes can be walked: by the app, by OpenAPI, by the tests."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from quart import Response

Method = Literal["GET", "POST", "PATCH", "DELETE"]
METHODS: tuple[Method, ...] = ("GET", "POST", "PATCH", "DELETE")

Handler = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path pattern, a method, and who handles it."""

    path: str
    method: Method
    handler: Handler


def template_of(path: str) -> str:
    """Return a path pattern as OpenAPI writes it and metrics label it: /v1/sessions/{session}."""
    return path.replace("<path:", "<").replace("<", "{").replace(">", "}")
