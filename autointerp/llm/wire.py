"""JSON over HTTP to one service: what breaks on the way is `Refused`, what it answers with an error is a `Failure`."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httpx2

from autointerp.llm.errors import Lost, Refused
from autointerp.llm.failures import Failure
from autointerp.llm.keys import find_key, is_local

N_POOLS = 8
"""A pool looks at each of its connections for every request: several small ones cost less than one of many slots."""


class Wire:
    """Requests to the paths below `url`, each with the key of the moment and `timeout_s` for all of it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url, self.timeout_s = url, timeout_s
        # A pool of connections belongs to the event loop that opened it, and every `asyncio.run` has its own.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Iterator[httpx2.AsyncClient]] = WeakKeyDictionary()

    def _client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = itertools.cycle([self._opened() for _ in range(N_POOLS)])
        return next(self._clients[loop])

    def _opened(self) -> httpx2.AsyncClient:
        # How many requests are under way is the caller's to say; a proxy cannot reach this machine's own ports.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx2.AsyncClient(timeout=None, limits=limits, trust_env=not is_local(self.url))

    async def json(self, method: str, path: str, **content: Any) -> dict[str, Any] | Failure:
        """The JSON object at `path`, or the service's error.

        Raises:
            Refused: nothing answers; `Lost` where it is no answer, half of one, or one that is no JSON object.
        """
        response = await self.send(method, path, **content)
        try:
            body = json.loads(response.content)
        except ValueError:
            body = response.text
        if not response.is_success:
            return Failure.of(response.status_code, body, response.headers, self.url)
        if not isinstance(body, dict):
            raise Lost(f"{self._host} answered with {len(response.content)} bytes that are no JSON object")
        return body

    async def send(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """The whole response to `method` on `path`.

        Raises:
            Refused: the connection failed, broke or was too slow.
            UsageError: there is no key.
        """
        key = find_key(self.url)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._client().request(method, self.url + path, headers=headers, **content)
        except TimeoutError as error:
            raise Lost(f"{self._host} did not answer within {self.timeout_s:g} s") from error
        except httpx2.ConnectError as error:
            raise Refused(f"nothing answers at {self.url}: is the server running?") from error
        except httpx2.RequestError as error:
            raise Lost(f"the connection to {self._host} broke: {type(error).__name__} {error}") from error

    @property
    def _host(self) -> str:
        return urlsplit(self.url).netloc
