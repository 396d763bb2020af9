"""A running server as the commands see it: one HTTP request at a time, through the standard library.

A command makes a handful of requests to one address; `http.client` does that with nothing to install and
nothing to import at start. Answers stay bytes until a command decodes what it needs, so that a message is
printed as it was stored.
"""

import http.client
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec
import orjson

from edge.cli.failure import CommandError, ExitCode, read_problem
from edge.cli.hints import refused
from edge.config import ClientConfig

# A page of the largest messages; anything longer is not an answer of this API.
ANSWER_BYTES_MAX = 512 * 1024 * 1024

_Answer = TypeVar("_Answer")


class Remote:
    """The server that `--url` names, with the caller's credential."""

    def __init__(self, config: ClientConfig) -> None:
        self.url = config.url
        self.timeout_seconds = config.timeout_seconds
        self._key = config.key

    @property
    def headers(self) -> dict[str, str]:
        """The headers that carry the credential, if there is one."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def socket_url(self, user: str | None) -> str:
        """Return where the WebSocket is; without a key the server believes who we say we are."""
        parts = urlsplit(self.url)
        query = f"?user_id={quote(user)}" if user and not self._key else ""
        return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/v1/ws{query}"

    def may_name_sender(self) -> bool:
        """Tell whether a message may name its sender: a user token speaks for its user alone."""
        return self._key is None or self._key.startswith("rl_")

    def get(self, path: str, **query: object) -> bytes:
        """Return the body of a successful GET."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: object) -> bytes:
        """Return the body of a successful POST of JSON."""
        return self.request("POST", path, body=orjson.dumps(body))

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return the body of a successful answer.

        Raises:
            CommandError: the server cannot be reached, did not answer in time, or refused.
        """
        status, answer = self.ask(method, path, body=body, query=query)
        if status >= 300:
            raise self.refused(status, read_problem(answer), _session_in(path))
        return answer

    def read(self, decode: Callable[[bytes], _Answer], answer: bytes) -> _Answer:
        """Return an answer decoded.

        Raises:
            CommandError: it is not what a Ringlog server answers.
        """
        try:
            return decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self.something_else("its answer is not one of Ringlog's API") from None

    def refused(
        self, status: int, problem: Mapping[str, Any], session: str | None = None
    ) -> CommandError:
        """Return the failure for an answer that is no success, of this server or of something else."""
        if not isinstance(problem.get("code"), str):
            return self.something_else(f"the answer is {status}")
        return refused(status, problem, session)

    def check_user(self, user: str | None, usage: str) -> None:
        """Raise unless the server will know who writes: only a user token says so by itself."""
        if user is None and self.may_name_sender():
            raise CommandError("missing_field", "who are you?", f"say it: {usage}", ExitCode.USAGE)

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, object] | None = None,
    ) -> tuple[int, bytes]:
        """Return status and body of any answer.

        Raises:
            CommandError: the server cannot be reached, or did not answer in time.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        headers = self.headers | ({"Content-Type": "application/json"} if body is not None else {})
        connection = self._connection()
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(ANSWER_BYTES_MAX)
        except TimeoutError:
            raise self.timed_out() from None
        except (OSError, http.client.HTTPException) as error:
            raise self.unreachable(error) from None
        finally:
            connection.close()

    def timed_out(self) -> CommandError:
        """Return the failure for an answer that did not come."""
        return CommandError(
            "timeout",
            f"{self.url} did not answer within {self.timeout_seconds:g} s",
            "what was sent may have been done; look at the server, or give --timeout-seconds",
            ExitCode.TIMEOUT,
        )

    def unreachable(self, error: Exception) -> CommandError:
        """Return the failure for a server that is not there, or is too slow, or is something else."""
        cause = _cause(error)
        if isinstance(cause, TimeoutError):
            return self.timed_out()
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return self.something_else(reason)

    def something_else(self, reason: str) -> CommandError:
        """Return the failure for an address at which there is no Ringlog server."""
        return CommandError(
            "unreachable",
            f"no Ringlog server answers at {self.url}: {reason}",
            "start one with `ringlog serve`, or name it with --url or RINGLOG_URL",
            ExitCode.UNREACHABLE,
        )

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                parts.netloc, timeout=self.timeout_seconds, context=context
            )
        return http.client.HTTPConnection(parts.netloc, timeout=self.timeout_seconds)


def path_of(*parts: str) -> str:
    """Return `/v1/…` with every part quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _session_in(path: str) -> str | None:
    """Return the session that a path of `path_of` names."""
    parts = path.split("/")
    return unquote(parts[3]) if parts[:3] == ["", "v1", "sessions"] and len(parts) > 3 else None


def _cause(error: BaseException) -> BaseException:
    """Return what an error is about: trio wraps the refusals of all the addresses of a name."""
    while not isinstance(error, TimeoutError):
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, OSError) and error.errno is None and error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    return error
